"""One self-contained page: what stands in it is escaped, styles and scripts are inside, and nothing is fetched."""

import base64
import hashlib
from functools import lru_cache
from importlib.resources import files

import jinja2
from markupsafe import Markup

#: Where templates, styles and scripts lie.
ASSETS = files("mimic_wds.looking") / "assets"


def render_page(title: str, template: str, /, script: str = "", **values: object) -> str:
    """The page `template` (a file of ASSETS) with these values; every text in them is escaped.

    script: name of a file of ASSETS that the page runs. Anything else, and every request, is forbidden to it by its
    content security policy: names in a data set can hold what they like.
    """
    code = asset(script) if script else ""
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return _environment().get_template(template).render(
        title=title, policy=policy, style=Markup(asset("page.css")), script=Markup(code), **values
    )  # fmt: skip


def asset(name: str) -> str:
    """The text of a file of ASSETS."""
    return (ASSETS / name).read_text(encoding="utf-8")


def data_uri(data: bytes, kind: str = "image/jpeg") -> str:
    """Bytes as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@lru_cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
