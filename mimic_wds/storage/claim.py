"""Who is pushing to a place: two pushes of different data would overwrite each other's shards before either is done.

A push puts a small hidden file by a conditional write, and takes it away at its end. It names the manifest that
is on its way. A push of the same manifest may work beside it, or go on where it was killed; one of another is refused.
"""

from dataclasses import dataclass

import msgspec

from mimic_wds.storage.layout import CLAIM_NAME
from mimic_wds.storage.places import Changed, WritablePlace


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A push under way."""

    manifest: str  #: `manifest_hash` of what will be there
    since: str  #: when it began, ISO 8601 in UTC


def read_claim(place: WritablePlace) -> tuple[Claim, str] | None:
    """The claim on a place and its etag; None without one. One that cannot be read counts as another's."""
    try:
        data, etag = place.read_with_etag(CLAIM_NAME)
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(data, type=Claim), etag
    except msgspec.DecodeError:
        return Claim(manifest="", since="an unknown time"), etag


def check_claim(place: WritablePlace, manifest: str, current: str, replace: bool) -> str | None:
    """The etag of a claim that is in the way of nobody, None without one. Raises ValueError for another push's.

    `manifest` is the hash of what is to be pushed, `current` that of what is there (its claim is done with).
    """
    found = read_claim(place)
    if found is None:
        return None
    claim, etag = found
    if claim.manifest not in (manifest, current) and not replace:
        raise ValueError(
            f"{place.url}: a push of other data began here at {claim.since} and is not done: wait for it; if it will "
            "not go on, take over with --replace"
        )
    return etag


def lay_claim(place: WritablePlace, claim: Claim, etag: str | None) -> None:
    """Claim a place, over the claim with this `etag` if there was one. Raises Changed when another push was quicker."""
    try:
        place.put_bytes(CLAIM_NAME, msgspec.json.encode(claim), if_match=etag, create=etag is None)
    except Changed:
        found = read_claim(place)
        if found is None or found[0].manifest != claim.manifest:
            raise Changed(f"{place.url}: another push has begun here meanwhile; nothing was copied") from None


def still_claimed(place: WritablePlace, manifest: str) -> bool:
    """Whether the claim of a push of this manifest is still there."""
    found = read_claim(place)
    return found is not None and found[0].manifest == manifest
