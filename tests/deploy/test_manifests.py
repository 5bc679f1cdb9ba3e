"""The manifests of tools/deploy: right by the schemas and the rules, and each of a list of mistakes is found.

Overlays are put together as kustomize does it, as far as they use it: resources, components, strategic merge patches, images.
"""
import copy
import json
import os
import re
import sys

import yaml
from jsonschema import Draft202012Validator

import rules

SOURCE = os.environ["KITH_TEST_SOURCE"]
DEPLOY = os.path.join(SOURCE, "tools/deploy")
HERE = os.path.dirname(os.path.abspath(__file__))
OVERLAYS = ("statefulset", "statefulset-io-uring", "sidecar", "daemonset")
MERGE_KEYS = {"containers": "name", "initContainers": "name", "volumes": "name", "env": "name", "ports": "containerPort",
              "volumeMounts": "mountPath"}


def schema(name):
    with open(os.path.join(HERE, "schemas", name), encoding="utf-8") as file:
        loaded = json.load(file)
    Draft202012Validator.check_schema(loaded)
    return loaded


KUBERNETES, KUSTOMIZATION, COMPOSE = schema("kubernetes.json"), schema("kustomization.json"), schema("compose.json")
KINDS = {name for name in KUBERNETES["$defs"] if name[0].isupper()}


def breaches(document, what):
    found = []
    for error in Draft202012Validator(what).iter_errors(document):
        found += [error] if not error.context else error.context
    return [f"{'/'.join(map(str, e.absolute_path))}: {e.message[:200]}" for e in found]


def load(path):
    with open(path, encoding="utf-8") as file:
        return [d for d in yaml.safe_load_all(file) if d is not None]


def merge(old, patch, key=None):
    """Strategic merge: objects member by member, lists of things with names by their names, null takes away."""
    if isinstance(old, dict) and isinstance(patch, dict):
        out = dict(old)
        for name, value in patch.items():
            if value is None:
                out.pop(name, None)
            else:
                out[name] = merge(old[name], value, name) if name in old else value
        return out
    if isinstance(old, list) and isinstance(patch, list) and key in MERGE_KEYS:
        name, out = MERGE_KEYS[key], list(old)
        for item in patch:
            places = [i for i, o in enumerate(out) if o.get(name) == item.get(name)]
            if places:
                out[places[0]] = merge(out[places[0]], item)
            else:
                out.append(item)
        return out
    return patch


def apply_patches(folder, kustomization, docs):
    for patch in kustomization.get("patches", []):
        for piece in load(os.path.join(folder, patch["path"])):
            kind = patch.get("target", {}).get("kind", piece["kind"])
            places = [i for i, d in enumerate(docs)
                      if d["kind"] == kind and d["metadata"]["name"] == piece["metadata"]["name"]]
            assert places, f"{folder}/{patch['path']} patches nothing"
            for i in places:
                docs[i] = merge(docs[i], piece)
    return docs


def put_images(kustomization, docs):
    for image in kustomization.get("images", []):
        used = False
        for doc in docs:
            pod = doc.get("spec", {}).get("template", {}).get("spec", {})
            for container in pod.get("initContainers", []) + pod.get("containers", []):
                if container["image"] == image["name"]:
                    container["image"] = f"{image['newName']}:{image['newTag']}"
                    used = True
        assert used, f"no container has the image {image['name']}"
    return docs


def read_kustomization(folder):
    found = load(os.path.join(folder, "kustomization.yaml"))
    assert len(found) == 1, folder
    wrong = breaches(found[0], KUSTOMIZATION)
    assert not wrong, f"{folder}: {wrong}"
    return found[0]


def build(folder):
    kustomization, docs = read_kustomization(folder), []
    named = set(kustomization["resources"])
    for name in kustomization["resources"]:
        path = os.path.normpath(os.path.join(folder, name))
        docs += build(path) if os.path.isdir(path) else load(path)
    for name in kustomization.get("components", []):
        path = os.path.normpath(os.path.join(folder, name))
        docs = apply_patches(path, read_kustomization(path), docs)
    docs = put_images(kustomization, apply_patches(folder, kustomization, docs))
    named |= {patch["path"] for patch in kustomization.get("patches", [])}
    for file in os.listdir(folder):
        assert not file.endswith(".yaml") or file == "kustomization.yaml" or file in named, f"{folder}/{file} is used by nobody"
    return docs


def problems(docs):
    """By the schemas; and by the rules, where the schemas are kept."""
    wrong = []
    for doc in docs:
        if doc.get("kind") not in KINDS:
            wrong.append(f"there is no schema of {doc.get('kind')}")
            continue
        where = f"{doc['kind']} {doc.get('metadata', {}).get('name')}: "
        wrong += [where + text for text in breaches(doc, {"$ref": f"#/$defs/{doc['kind']}", "$defs": KUBERNETES["$defs"]})]
    return wrong or rules.check(docs)


def compose_problems(doc):
    return breaches(doc, COMPOSE) or rules.check_compose(doc)


# ---- mistakes: each is made in a copy, and has to be found with these words -------------------------------------------------


def find(docs, kind, name):
    return next(d for d in docs if d["kind"] == kind and d["metadata"]["name"] == name)


def pod_of(docs):
    return next(d for d in docs if d["kind"] in rules.WORKLOADS)["spec"]["template"]["spec"]


def container(docs, name):
    pod = pod_of(docs)
    return next(c for c in pod.get("initContainers", []) + pod["containers"] if c["name"] == name)


def at(name, *path_and_value):
    """Sets a value below a container; None takes it away."""
    *path, last, value = path_and_value

    def change(docs):
        place = container(docs, name)
        for step in path:
            place = place[step]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return change


def word(name, old, new):
    """Exchanges a word of the arguments."""
    def change(docs):
        args = container(docs, name)["args"]
        args[args.index(old)] = new
    return change


def in_pod(*path_and_value):
    *path, last, value = path_and_value

    def change(docs):
        place = pod_of(docs)
        for step in path:
            place = place[step]
        place[last] = value
    return change


def without(kind, name):
    def change(docs):
        docs.remove(find(docs, kind, name))
    return change


def spec_of(kind, name, *path_and_value):
    *path, last, value = path_and_value

    def change(docs):
        place = find(docs, kind, name)["spec"]
        for step in path:
            place = place[step]
        place[last] = value
    return change


def volume(name, key, value):
    def change(docs):
        place = next(v for v in pod_of(docs)["volumes"] if v["name"] == name)
        place[key] = value
    return change


def move_kithd_to_containers(docs):
    pod = pod_of(docs)
    kithd = pod.pop("initContainers")[0]
    del kithd["restartPolicy"]
    pod["containers"].insert(0, kithd)


MISTAKES = (
    # What a schema finds.
    ("statefulset", "a field spelled wrongly", at("gateway", "securityContext", "readonlyRootFilesystem", True), "readonlyRootFilesystem"),
    ("statefulset", "no limits", at("kithd", "resources", "limits", None), "'limits' is a required property"),
    ("statefulset", "no memory limit", at("gateway", "resources", "limits", "memory", None), "'memory' is a required property"),
    ("statefulset", "no liveness probe", at("gateway", "livenessProbe", None), "'livenessProbe' is a required property"),
    ("statefulset", "no startup probe", at("kithd", "startupProbe", None), "'startupProbe' is a required property"),
    ("sidecar", "an init container that ends", at("kithd", "restartPolicy", None), "'restartPolicy' is a required property"),
    ("sidecar", "privileged", at("kithd", "securityContext", "privileged", True), "privileged"),
    ("sidecar", "no security context", at("app", "securityContext", None), "'securityContext' is a required property"),
    ("sidecar", "tmpfs without a size", volume("run", "emptyDir", {"medium": "Memory"}), "'sizeLimit' is a required property"),
    ("daemonset", "a host path that is made on the fly", volume("run", "hostPath", {"path": "/run/kith", "type": "DirectoryOrCreate"}),
     "DirectoryOrCreate"),
    ("statefulset", "seccomp unconfined", in_pod("securityContext", "seccompProfile", "type", "Unconfined"), "seccompProfile"),
    ("statefulset", "another kind", lambda docs: docs.append({"apiVersion": "v1", "kind": "Pod"}), "no schema of Pod"),
    ("statefulset", "another version of the interface", lambda docs: find(docs, "PodDisruptionBudget", "kith").update(apiVersion="policy/v1beta1"),
     "policy/v1"),
    # What a rule finds.
    ("statefulset", "an option that kithd has not", word("kithd", "--threads", "--thread"), "kithd has no option --thread"),
    ("statefulset", "an option that the gateway has not", word("gateway", "--keys", "--key-file"), "kith-gateway has no option --key-file"),
    ("statefulset", "an option of a probe", at("kithd", "livenessProbe", "exec", "command", ["/usr/bin/kith", "--run", "/run/kith/index", "stats", "--live"]),
     "kith has no option --live"),
    ("statefulset", "a command of a probe", at("kithd", "readinessProbe", "exec", "command", ["/usr/bin/kith", "status", "--ready"]), "no command status"),
    ("statefulset", "an option without its value", at("kithd", "args", ["--data", "--run", "/run/kith/index"]), "wants a value after --data"),
    ("statefulset", "a program elsewhere", at("kithd", "command", ["/usr/local/bin/kithd"]), "in /usr/bin"),
    ("statefulset", "liveness by readiness", at("kithd", "livenessProbe", "exec", "command", ["/usr/bin/kith", "--run", "/run/kith/index", "stats", "--ready"]),
     "liveness probe depends on loading"),
    ("statefulset", "liveness by doctor", at("kithd", "livenessProbe", "exec", "command", ["/usr/bin/kith", "--run", "/run/kith/index", "doctor"]),
     "liveness probe depends on loading"),
    ("statefulset", "liveness of the gateway by readiness", at("gateway", "livenessProbe", "httpGet", "path", "/readyz"), "liveness probe depends"),
    ("statefulset", "a start that may take a minute", at("kithd", "startupProbe", "failureThreshold", 30), "ended before it is done"),
    ("statefulset", "a root file system that can be written", at("gateway", "securityContext", "readOnlyRootFilesystem", False), "can be written"),
    ("statefulset", "root", at("kithd", "securityContext", "runAsUser", 0), "runs as root"),
    ("statefulset", "privileges", at("kithd", "securityContext", "allowPrivilegeEscalation", True), "privileges may be gained"),
    ("statefulset", "capabilities", at("kithd", "securityContext", "capabilities", "drop", ["NET_RAW"]), "capabilities are left"),
    ("statefulset", "the tmpfs uses up the limit", volume("run", "emptyDir", {"medium": "Memory", "sizeLimit": "4608Mi"}), "beside the tmpfs"),
    ("statefulset", "a run directory on a disk", volume("run", "emptyDir", {"sizeLimit": "4Gi"}), "on a disk"),
    ("statefulset", "the volume as run directory", word("kithd", "/run/kith/index", "/run/kith"), "not below the volume"),
    ("statefulset", "the volume as data directory", word("kithd", "/var/lib/kith/data", "/var/lib/kith"), "not below a volume"),
    ("statefulset", "group bits at each start", in_pod("securityContext", "fsGroupChangePolicy", "Always"), "OnRootMismatch"),
    ("statefulset", "a read group that nobody is in", word("kithd", "10002", "10009"), "no group of the pod"),
    ("statefulset", "no keys", at("gateway", "args", ["--run", "/run/kith/index", "--listen", "0.0.0.0"]), "without --keys"),
    ("statefulset", "keys that others read", volume("keys", "secret", {"secretName": "kith-keys"}), "read by others"),
    ("statefulset", "no preStop", at("gateway", "lifecycle", None), "no preStop"),
    ("statefulset", "kithd as an ordinary container", move_kithd_to_containers, "has to be a sidecar"),
    ("statefulset", "a service that balances", spec_of("Service", "kith", "clusterIP", "10.0.0.7"), "no headless service"),
    ("statefulset", "a service that selects nothing", spec_of("Service", "kith", "selector", {"app": "kth"}), "selects no pod"),
    ("statefulset", "no disruption budget", without("PodDisruptionBudget", "kith"), "no disruption budget"),
    ("statefulset", "a budget that lets nothing go", spec_of("PodDisruptionBudget", "kith", "maxUnavailable", 0), "no node be drained"),
    ("statefulset", "no network policy", without("NetworkPolicy", "kith-closed"), "no network policy closes"),
    ("statefulset", "an open network policy", spec_of("NetworkPolicy", "kith-closed", "policyTypes", ["Ingress"]), "no network policy closes"),
    ("statefulset", "a token", in_pod("automountServiceAccountToken", True), "token is mounted"),
    ("statefulset", "no service account", without("ServiceAccount", "kith"), "no service account"),
    ("statefulset", "no configuration", without("ConfigMap", "kith-gateway"), "no config map"),
    ("statefulset", "no time to stop", in_pod("terminationGracePeriodSeconds", 5), "too little time"),
    ("statefulset", "the latest image", at("kithd", "image", "localhost/kith:latest"), "no tag"),
    ("sidecar", "readers that may write", at("app", "volumeMounts", 0, "readOnly", False), "not mounted read-only"),
    ("sidecar", "memory that is not requested", at("app", "resources", "requests", "memory", "16Mi"), "not requested"),
    ("daemonset", "no read group", in_pod("securityContext", "supplementalGroups", [10003]), "no group of the pod"),
)


def set_in(doc, *path_and_value):
    *path, last, value = path_and_value
    for step in path:
        doc = doc[step]
    doc[last] = value


COMPOSE_MISTAKES = (
    ("a key spelled wrongly", ("services", "kithd", "readonly", True), "readonly"),
    ("a root file system that can be written", ("services", "kithd", "read_only", False), "True was expected"),
    ("a port for everybody", ("services", "gateway", "ports", ["8080:8080"]), "8080:8080"),
    ("privileges", ("services", "app", "security_opt", ["seccomp:unconfined"]), "does not contain"),
    ("an option that kithd has not", ("services", "kithd", "command", ["/usr/bin/kithd", "--dir", "/x"]), "kithd has no option --dir"),
    ("the tmpfs uses up the limit", ("services", "kithd", "mem_limit", "1024m"), "beside the tmpfs"),
    ("readers that may write", ("services", "app", "volumes", ["run:/run/kith"]), "others to read"),
    ("root", ("services", "gateway", "user", "0:0"), "runs as root"),
)


def compose_is_right_and_mistakes_are_found():
    good = load(os.path.join(DEPLOY, "compose.yaml"))[0]
    assert compose_problems(good) == [], compose_problems(good)
    for what, change, words in COMPOSE_MISTAKES:
        bad = copy.deepcopy(good)
        set_in(bad, *change)
        found = compose_problems(bad)
        assert any(words in text for text in found), f"{what}: {found}"
    return len(COMPOSE_MISTAKES)


def manifests_are_right():
    for overlay in OVERLAYS:
        docs = build(os.path.join(DEPLOY, "kubernetes", overlay))
        assert problems(docs) == [], "\n".join([overlay, *problems(docs)])
    folders = set(os.listdir(os.path.join(DEPLOY, "kubernetes"))) - {"README.md"}
    assert folders == {*OVERLAYS, "base", "io-uring"}, folders
    uring = build(os.path.join(DEPLOY, "kubernetes", "statefulset-io-uring"))
    assert container(uring, "kithd")["securityContext"]["seccompProfile"]["localhostProfile"] == "kith.json"
    return len(OVERLAYS)


def mistakes_are_found():
    for overlay, what, change, words in MISTAKES:
        docs = copy.deepcopy(build(os.path.join(DEPLOY, "kubernetes", overlay)))
        change(docs)
        found = problems(docs)
        assert any(words in text for text in found), f"{overlay}, {what}: wanted \"{words}\", found {found}"
        assert len(found) <= 6, f"{overlay}, {what}: one mistake, and {found}"
    assert len(MISTAKES) >= 10
    return len(MISTAKES)


def the_gateways_configuration_has_keys_that_there_are():
    with open(os.path.join(SOURCE, "tools/man/kith-gateway.8.scd"), encoding="utf-8") as page:
        known = set(re.findall(r"\*([a-z_]+)\*", page.read().replace("\\_", "_")))
    config = find(build(os.path.join(DEPLOY, "kubernetes/statefulset")), "ConfigMap", "kith-gateway")["data"]["gateway.conf"]
    limits = dict(re.findall(r"^(\w+) = (\d+)$", config, re.M))
    assert len(limits) == len(config.splitlines()) and set(limits) <= known, config
    memory = rules.mib(container(build(os.path.join(DEPLOY, "kubernetes/statefulset")), "gateway")["resources"]["limits"]["memory"])
    assert int(limits["bodies_mib"]) + int(limits["answers_mib"]) + 64 <= memory, "the gateway's limits exceed its memory"
    return len(limits)


def the_seccomp_profile_is_one_and_permits_io_uring():
    with open(os.path.join(DEPLOY, "seccomp.json"), encoding="utf-8") as file:
        profile = json.load(file)
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO" and set(profile) == {"defaultAction", "defaultErrnoRet", "archMap", "syscalls"}
    names = [name for rule in profile["syscalls"] for name in rule["names"]]
    assert all(rule["action"] == "SCMP_ACT_ALLOW" and rule["comment"] for rule in profile["syscalls"])
    assert len(set(names)) == len(names) and {"io_uring_setup", "io_uring_enter", "io_uring_register"} <= set(names)
    # What a process without capabilities and without a network of its own has no use for.
    forbidden = {"mount", "umount2", "pivot_root", "chroot", "setns", "unshare", "ptrace", "process_vm_readv", "bpf", "perf_event_open", "keyctl",
                 "add_key", "init_module", "finit_module", "kexec_load", "reboot", "swapon", "userfaultfd", "open_by_handle_at", "clock_settime"}
    assert not forbidden & set(names), forbidden & set(names)
    return len(names)


def main():
    failed = 0
    for test in (manifests_are_right, mistakes_are_found, compose_is_right_and_mistakes_are_found,
                 the_gateways_configuration_has_keys_that_there_are, the_seccomp_profile_is_one_and_permits_io_uring):
        try:
            print(f"ok      {test.__name__} ({test()})", flush=True)
        except AssertionError as error:
            failed += 1
            print(f"FAILED  {test.__name__}\n{error}", flush=True)
    print(f"{failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
