"""The image, as build.sh makes it of programs that are there: what is in it, for whom, how large, and that it is the same each time.

Compiling within the image is the one part that is left out here, as it takes minutes. Skipped where buildah is missing or may not
work (it takes root).
"""
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile

SOURCE = os.environ["KITH_TEST_SOURCE"]
PROGRAMS = os.environ["KITH_TEST_PROGRAMS"]
SKIP = 77
LIMIT_BYTES = 20_000_000


def build(output, *options):
    environment = dict(os.environ, SOURCE_DATE_EPOCH="1700000000")
    done = subprocess.run([os.path.join(SOURCE, "tools/deploy/image/build.sh"), "--programs", PROGRAMS, "--output", output, *options],
                          env=environment, capture_output=True, text=True, timeout=200, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Image:
    """An OCI archive: its configuration and the files of its layers."""

    def __init__(self, path, unpacked):
        with tarfile.open(path) as archive:
            archive.extractall(unpacked)  # our own file
        self.blobs = os.path.join(unpacked, "blobs")
        with open(os.path.join(unpacked, "index.json"), encoding="utf-8") as index:
            self.manifest_digest = json.load(index)["manifests"][0]["digest"]
        self.manifest = json.loads(self.blob(self.manifest_digest))
        self.config = json.loads(self.blob(self.manifest["config"]["digest"]))
        self.files = {}
        for layer in self.manifest["layers"]:
            with tarfile.open(self.blob_path(layer["digest"])) as layer_file:
                for member in layer_file:
                    self.files["/" + member.name.strip("/")] = member

    def blob_path(self, digest):
        return os.path.join(self.blobs, *digest.split(":"))

    def blob(self, digest):
        with open(self.blob_path(digest), "rb") as blob:
            return blob.read()


def the_image_has_what_it_needs_and_nothing_else(work):
    said = build(os.path.join(work, "a.tar"))
    image = Image(os.path.join(work, "a.tar"), os.path.join(work, "a"))
    run = image.config["config"]
    assert run["User"] == "10001:10001" and run["Cmd"] == ["/usr/bin/kithd", "--data", "/var/lib/kith/data"], run
    assert "KITH_RUN=/run/kith/index" in run["Env"] and not run.get("Entrypoint"), run
    labels = run["Labels"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0" and labels["org.opencontainers.image.version"] != "0", labels
    assert labels["org.opencontainers.image.created"] == "2023-11-14T22:13:20Z", labels
    assert not any("buildah" in key for key in labels), labels

    programs = {name for name in image.files if name.startswith("/usr/bin/")}
    assert programs == {"/usr/bin/kithd", "/usr/bin/kith", "/usr/bin/kith-gateway"}, programs
    for name, member in image.files.items():
        assert not member.mode & 0o6000, f"{name} is set-id"
        assert member.isdir() or not member.mode & 0o022, f"{name} can be written by others"
        assert name.startswith(("/var", "/run")) or member.uid == 0, f"{name} belongs to user {member.uid}"
        assert not name.endswith(("/sh", "/bash", "/dash", "/busybox")), name
    for place in ("/var/lib/kith", "/run/kith"):
        assert image.files[place].uid == 10001, f"{place} belongs to user {image.files[place].uid}"
    assert "/usr/share/doc/kith/LICENSE" in image.files and "/usr/share/doc/libc6/copyright" in image.files

    size = sum(member.size for member in image.files.values())
    assert size < LIMIT_BYTES, f"{size} bytes"
    print("        " + said.strip().splitlines()[-1])
    return image


def the_same_sources_give_the_same_image(work):
    first = Image(os.path.join(work, "a.tar"), os.path.join(work, "a1"))
    build(os.path.join(work, "b.tar"))
    second = Image(os.path.join(work, "b.tar"), os.path.join(work, "b"))
    assert first.manifest_digest == second.manifest_digest, (first.config, second.config)
    digests = []
    for name in ("a.tar", "b.tar"):
        with open(os.path.join(work, name), "rb") as file:
            digests.append(hashlib.sha256(file.read()).hexdigest())
    print(f"        manifest {first.manifest_digest[:26]}, the archives {'are' if digests[0] == digests[1] else 'differ, and their content is'} the same")


def a_docker_archive_has_the_health_check(work):
    build(os.path.join(work, "c.tar"), "--docker")
    with tarfile.open(os.path.join(work, "c.tar")) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))
        config = json.load(archive.extractfile(manifest[0]["Config"]))
    assert config["config"]["Healthcheck"]["Test"] == ["CMD", "/usr/bin/kith", "doctor", "--quiet"], config["config"]
    assert manifest[0]["RepoTags"][0].startswith("localhost/kith:"), manifest


def the_example_has_its_library_and_no_kithd(work):
    build(os.path.join(work, "d.tar"), "--target", "example")
    image = Image(os.path.join(work, "d.tar"), os.path.join(work, "d"))
    assert "/usr/bin/kith-example-app" in image.files and "/usr/bin/kithd" not in image.files
    assert any(name.endswith("/libkith.so.0") for name in image.files)
    assert image.config["config"]["User"] == "10010:10003"


def wrong_usage_says_what_is_right(_):
    for options, words in ((["--target", "all"], "--target is kith or example"), (["--bases"], "unknown option --bases"),
                           (["--output"], "--output needs a value")):
        done = subprocess.run([os.path.join(SOURCE, "tools/deploy/image/build.sh"), *options], capture_output=True, text=True,
                              timeout=60, check=False)
        assert done.returncode == 2 and words in done.stderr, done.stderr
    done = subprocess.run([os.path.join(SOURCE, "tools/deploy/image/rootfs.sh"), "/nonexistent/x"], capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 2 and "PROGRAM..." in done.stderr, done.stderr


def main():
    if not shutil.which("buildah") or os.geteuid() != 0:
        print("skipped: buildah, and root for it, are needed")
        sys.exit(SKIP)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="kith-image-test-", dir=os.path.dirname(PROGRAMS)) as work:
        for test in (the_image_has_what_it_needs_and_nothing_else, the_same_sources_give_the_same_image,
                     a_docker_archive_has_the_health_check, the_example_has_its_library_and_no_kithd, wrong_usage_says_what_is_right):
            try:
                test(work)
                print(f"ok      {test.__name__}", flush=True)
            except (AssertionError, OSError, KeyError, subprocess.TimeoutExpired) as error:
                failed += 1
                print(f"FAILED  {test.__name__}\n{type(error).__name__}: {error}", flush=True)
    print(f"{failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
