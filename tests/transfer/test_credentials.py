"""Credentials: found where the providers' tools look, shown and kept nowhere."""

import base64
import http.server
import sys
import threading

import processes
import pytest
from servers_for_transfer import ACCESS, BUCKET, SECRET, WebServer, environment, files, objects

from mimic_wds.cli.push import push
from mimic_wds.storage.addresses import aws_profile, mask, s3_options, split_url
from mimic_wds.storage.places import open_place, open_target


def run(*args, env):
    """Exit code and all that a command printed."""
    done = processes.run([sys.executable, "-m", "mimic_wds.cli.main", *args], env=env)
    return done.returncode, done.stdout + done.stderr


class Forbidding(http.server.BaseHTTPRequestHandler):
    """Answers as S3 does to a wrong signature: with what was signed."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        body = (
            f"<Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>{ACCESS}</AWSAccessKeyId><StringToSign>"
            f"{self.headers.get('Authorization')}</StringToSign></Error>"
        ).encode()
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_HEAD = do_POST = do_GET


@pytest.fixture
def forbidding():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Forbidding) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def everything(folder):
    """All bytes of all files below a folder."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_no_output_and_no_file_holds_a_secret(data_set, endpoint, forbidding, tmp_path, s3, prefix):
    env, said = environment(endpoint, tmp_path), []
    url = f"s3://{BUCKET}/{prefix}"
    for args, code in [
        (("push", data_set, url), 0),
        (("pull", url, tmp_path / "a", "--json"), 0),
        (("pull", f"s3://{ACCESS}:{SECRET}@{BUCKET}/x", tmp_path / "b"), 2),
        (("pull", f"http://joe:{SECRET}@127.0.0.1:9/x?sig={SECRET}", tmp_path / "b"), 2),
        (("pull", f"http://joe:{SECRET}@{forbidding.removeprefix('http://')}/x", tmp_path / "b"), 1),
        (("push", data_set, url, "--endpoint", forbidding), 1),
        (("pull", url, tmp_path / "b", "--endpoint", forbidding), 1),
        (("pull", url, tmp_path / "b", "--endpoint", f"http://{ACCESS}:{SECRET}@127.0.0.1:9"), 2),
        (("push", data_set, f"s3://no-such-bucket/{prefix}"), 1),
    ]:
        returned, output = run(*args, env=env)
        assert returned == code, output
        said.append(output)
    assert "no permission (403)" in said[5]
    assert "there is no such bucket" in said[8]
    for secret in (SECRET, ACCESS, "Signature", base64.b64encode(f"joe:{SECRET}".encode()).decode()):
        assert secret not in "".join(said)
        assert secret.encode() not in everything(tmp_path)
        assert not any(secret.encode() in data for data in objects(s3, prefix).values())


def test_the_endpoint_option(data_set, endpoint, tmp_path, s3, prefix):
    env = environment("http://127.0.0.1:9", tmp_path)
    assert run("push", data_set, f"s3://{BUCKET}/{prefix}", "--endpoint", endpoint, env=env)[0] == 0
    assert "manifest.json" in objects(s3, prefix)


def test_a_profile_gives_keys_region_and_endpoint(data_set, endpoint, tmp_path, s3, prefix):
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        f"[lab]\naws_access_key_id = {ACCESS}\naws_secret_access_key = {SECRET}\n[sso]\n"
    )
    (tmp_path / ".aws" / "config").write_text(
        f"[profile lab]\nregion = us-east-1\nendpoint_url = {endpoint}\n[profile sso]\nsso_session = x\n"
    )
    env = {name: value for name, value in environment("", tmp_path).items() if not name.startswith("AWS_")}
    returned, said = run("push", data_set, f"s3://{BUCKET}/{prefix}", env={**env, "AWS_PROFILE": "lab"})
    assert (returned, SECRET in said) == (0, False), said
    assert "manifest.json" in objects(s3, prefix)
    for profile, message in (("sso", "export its keys first"), ("none", "is in neither the config nor")):
        returned, said = run("pull", f"s3://{BUCKET}/x", tmp_path / "b", env={**env, "AWS_PROFILE": profile})
        assert returned == 2
        assert message in said.replace("\n", " ")


def test_what_counts_first(tmp_path):
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("[default]\naws_access_key_id=A\naws_secret_access_key=B\n")
    (tmp_path / ".aws" / "config").write_text("[default]\nregion=eu-west-1\nendpoint_url=http://profile\n")
    home = {"HOME": str(tmp_path)}
    keys = {"access_key_id": "A", "secret_access_key": "B"}
    assert s3_options("", False, home) == {**keys, "region": "eu-west-1", "endpoint": "http://profile"}
    in_environment = {**home, "AWS_ACCESS_KEY_ID": "C", "AWS_SECRET_ACCESS_KEY": "D"}
    assert s3_options("", False, in_environment) == {"region": "eu-west-1", "endpoint": "http://profile"}
    assert s3_options("", False, {**in_environment, "AWS_ENDPOINT_URL": "http://env"})["endpoint"] == "http://env"
    assert s3_options("http://option", False, {**home, "AWS_ENDPOINT_URL": "http://env"})["endpoint"] == "http://option"
    assert s3_options("", False, {**home, "AWS_REGION": "x"}) == {**keys, "endpoint": "http://profile"}
    assert s3_options("", True, home) == {"skip_signature": True, "region": "eu-west-1", "endpoint": "http://profile"}


def test_no_credentials_at_all_is_said_at_once(tmp_path):
    with pytest.raises(PermissionError, match="no AWS credentials: set AWS_ACCESS_KEY_ID"):
        s3_options("", False, {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"})
    with pytest.raises(PermissionError, match="no AWS credentials"):
        s3_options("", False, {"HOME": str(tmp_path), "AWS_METADATA_ENDPOINT": "http://127.0.0.1:9"})


def test_a_broken_credentials_file_is_not_quoted(tmp_path):
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(f"{SECRET} = without a section\n")
    with pytest.raises(ValueError, match="cannot be read as an AWS configuration file") as refused:
        aws_profile({"HOME": str(tmp_path)})
    assert SECRET not in str(refused.value)


def test_a_user_and_password_of_a_web_server_go_into_the_header_only(data_set, tmp_path):
    with WebServer(data_set) as server:
        place = open_place(server.url.replace("://", "://joe:p%40ss@"))
        assert place.read("README.md") == b"generation 0\n"
        assert place.url == server.url
        assert server.log[-1][3] == "Basic " + base64.b64encode(b"joe:p@ss").decode()
        with pytest.raises(FileNotFoundError) as missing:
            place.read("x")
        assert "p%40ss" not in str(missing.value) + repr(place)


def test_a_public_bucket_is_read_without_credentials(data_set, endpoint, tmp_path, s3, prefix, monkeypatch):
    push(data_set, f"s3://{BUCKET}/{prefix}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    place = open_place(f"s3://{BUCKET}/{prefix}", endpoint=endpoint, anonymous=True)
    assert place.names() == {n: len(d) for n, d in files(data_set).items() if n != "recipe.toml"}


def test_addresses():
    assert split_url("s3://bucket/a/b/") == ("s3", "s3://bucket/a/b", "")
    assert split_url("abfss://container@account.dfs.core.windows.net/x")[0] == "az"
    for url, message in {
        "ftp://host/x": "expected a folder or one of s3://",
        "s3:///x": "names no bucket",
        "https://host/x?X-Amz-Signature=abc": "is a signed URL",
    }.items():
        with pytest.raises(ValueError, match=message) as refused:
            open_place(url)
        assert "abc" not in str(refused.value)
    assert mask("GET https://a:b@host/x?sig=1 (gs://c)") == "GET https://***@host/x?*** (gs://c)"


@pytest.mark.parametrize("url", ["gs://bucket/x", "az://container/x", "abfss://c@a.dfs.core.windows.net/x"])
def test_other_providers_open_without_being_contacted(url, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "a")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", base64.b64encode(b"key").decode())
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    assert open_target(url).url == url
