"""What has to hold in manifests of Kith and no schema can say. check() and check_compose() give a list of sentences: what is wrong, and
where. Kept apart from the schemas: those say what Kubernetes takes, these what is right for kithd.
"""
import functools
import os
import re
import subprocess

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")
MIB = {"Mi": 1, "Gi": 1024, "Ti": 1024 * 1024}
# Beyond the tmpfs: kithd's own memory, and what of logs and checkpoints is in the page cache (tools/deploy/SIZING.md).
KITHD_OWN_MIB = 256
START_BUDGET_S = 3600
RUN_VOLUME, DATA_VOLUME = "run", "data"


def mib(text):
    return int(text[:-2]) * MIB[text[-2:]]


@functools.lru_cache
def help_of(program, subcommand=None):
    words = [os.path.join(os.environ["KITH_TEST_PROGRAMS"], program)] + ([subcommand] if subcommand else []) + ["--help"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def options_of(text):
    """Options by a help text; True for those that take a value."""
    found = {}
    for name, value in re.findall(r"(--[a-z][a-z-]*)( (?:[A-Z]+|yes\|no|'\[))?", text):
        found[name] = found.get(name, False) or bool(value)
    return found


def command_line(words):
    """What is wrong with a command line, by --help of the program that it calls."""
    program = os.path.basename(words[0])
    if program not in ("kithd", "kith", "kith-gateway", "kith-example-app"):
        return [f"{words[0]} is no program of the image"]
    if words[0] != "/usr/bin/" + program:
        return [f"{words[0]}: the image has it in /usr/bin"]
    wrong, known, subcommand, rest = [], options_of(help_of(program)), None, list(words[1:])
    if program == "kith":
        known = {"--run": True, "--json": False, "--help": False, "--version": False}
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            if program == "kith" and subcommand is None:
                if not re.search(rf"^ *{re.escape(word)}\b", help_of("kith"), re.M):
                    return wrong + [f"kith has no command {word}"]
                subcommand = word
                known = {**known, **options_of(help_of("kith", word))}
            elif program in ("kithd", "kith-gateway"):
                wrong.append(f"{program} takes no argument {word}")
            continue
        if word not in known:
            wrong.append(f"{program} has no option {word}")
        elif known[word] and (not rest or rest[0].startswith("--")):
            wrong.append(f"{program} wants a value after {word}")
        elif known[word]:
            rest.pop(0)
    return wrong


def value_of(words, option):
    return words[words.index(option) + 1] if option in words and words.index(option) + 1 < len(words) else None


def is_kithd(container):
    return os.path.basename(container["command"][0]) == "kithd"


def is_gateway(container):
    return os.path.basename(container["command"][0]) == "kith-gateway"


def probe_words(container, probe):
    return container[probe].get("exec", {}).get("command", [])


def check_container(container, pod, volumes):
    name, wrong, security = container["name"], [], container["securityContext"]
    kithd, words = is_kithd(container), container["command"] + container["args"]
    mounts = {m["name"]: m for m in container["volumeMounts"]}

    wrong += command_line(words)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        if probe_words(container, probe):
            wrong += [f"{probe}: {text}" for text in command_line(probe_words(container, probe))]
        for key in ("timeoutSeconds", "periodSeconds"):
            if container[probe].get(key, 1) < 1:
                wrong.append(f"{probe}: {key} is 0")
    if ":" not in container["image"].rsplit("/", 1)[-1] or container["image"].endswith(":latest"):
        wrong.append(f"image {container['image']} has no tag that stays what it is")

    if security["runAsUser"] == 0 or security["runAsGroup"] == 0:
        wrong.append("runs as root")
    if not security["readOnlyRootFilesystem"]:
        wrong.append("the root file system can be written")
    if security["allowPrivilegeEscalation"]:
        wrong.append("privileges may be gained")
    if security["capabilities"]["drop"] != ["ALL"]:
        wrong.append("capabilities are left")
    if container["resources"]["requests"]["memory"] != container["resources"]["limits"]["memory"]:
        wrong.append("memory that is used and not requested: a node under pressure takes the pod first")

    liveness = probe_words(container, "livenessProbe")
    if "--ready" in liveness or "doctor" in liveness or container["livenessProbe"].get("httpGet", {}).get("path") == "/readyz":
        wrong.append("the liveness probe depends on loading or on surroundings: it would restart what is right")
    if not kithd and "lifecycle" not in container:
        wrong.append("no preStop: requests that come while endpoints are taken away are lost")
    for mount in mounts.values():
        if mount["name"] not in volumes:
            wrong.append(f"there is no volume {mount['name']}")
    if RUN_VOLUME not in mounts:
        return wrong + ["the run directory is not mounted"]
    run = value_of(words, "--run")
    for words_of_probe in (words, liveness, probe_words(container, "startupProbe"), probe_words(container, "readinessProbe")):
        if value_of(words_of_probe, "--run") not in (run, None):
            wrong.append("a probe looks at another run directory")
    if not run or not run.startswith(mounts[RUN_VOLUME]["mountPath"] + "/"):
        wrong.append(f"--run {run} is not below the volume: kithd refuses a volume that others may write")
    if kithd:
        wrong += check_kithd(container, words, pod, mounts, volumes)
    else:
        if not mounts[RUN_VOLUME].get("readOnly"):
            wrong.append("the run directory is not mounted read-only")
        if DATA_VOLUME in mounts:
            wrong.append("the data directory is kithd's alone")
    if is_gateway(container):
        listen = value_of(words, "--listen") or "127.0.0.1"
        if listen != "127.0.0.1" and "--keys" not in words:
            wrong.append(f"listens on {listen} without --keys")
        if str(security["runAsGroup"]) == "10001":
            wrong.append("runs in kithd's own group")
    return wrong


def check_kithd(container, words, pod, mounts, volumes):
    wrong = []
    groups = [pod["securityContext"].get("fsGroup"), *pod["securityContext"].get("supplementalGroups", [])]
    if "--ready" not in probe_words(container, "startupProbe") or "--ready" not in probe_words(container, "readinessProbe"):
        wrong.append("startup and readiness are not asked for by --ready")
    if "--alive" not in probe_words(container, "livenessProbe"):
        wrong.append("liveness is not asked for by --alive")
    startup = container["startupProbe"]
    if startup["periodSeconds"] * startup["failureThreshold"] < START_BUDGET_S:
        wrong.append("a start that takes long is ended before it is done")
    if mounts[RUN_VOLUME].get("readOnly"):
        wrong.append("kithd cannot write its run directory")
    data = value_of(words, "--data")
    if DATA_VOLUME not in mounts or not data or not data.startswith(mounts[DATA_VOLUME]["mountPath"] + "/"):
        wrong.append(f"--data {data} is not below a volume")
    group = value_of(words, "--read-group")
    if group is None or not group.isdigit() or int(group) not in groups:
        wrong.append(f"--read-group {group} is no group of the pod")
    volume = volumes.get(RUN_VOLUME, {})
    if "emptyDir" in volume:
        if volume["emptyDir"].get("medium") != "Memory":
            wrong.append("the run directory is on a disk")
        elif mib(container["resources"]["limits"]["memory"]) < mib(volume["emptyDir"]["sizeLimit"]) + KITHD_OWN_MIB:
            wrong.append(f"the memory limit leaves less than {KITHD_OWN_MIB}Mi beside the tmpfs, whose pages count in it")
    elif "hostPath" not in volume:
        wrong.append("the run directory is neither memory nor the node's")
    if "claim" in volumes.get(DATA_VOLUME, {}) and pod["securityContext"].get("fsGroupChangePolicy") != "OnRootMismatch":
        wrong.append("fsGroupChangePolicy is not OnRootMismatch: the data directory would become writable for the group, which "
                     "kithd refuses")
    return wrong


def selects(selector, labels):
    return all(labels.get(key) == value for key, value in selector.items())


def check_workload(doc, docs):
    spec, wrong = doc["spec"], []
    pod, labels = spec["template"]["spec"], spec["template"]["metadata"]["labels"]
    volumes = {v["name"]: v for v in pod["volumes"]}
    for claim in spec.get("volumeClaimTemplates", []):
        volumes[claim["metadata"]["name"]] = {"claim": claim}
    containers = pod.get("initContainers", []) + pod["containers"]
    for container in containers:
        wrong += [f"{container['name']}: {text}" for text in check_container(container, pod, volumes)]
    names = [c["name"] for c in containers]
    if len(set(names)) != len(names):
        wrong.append("two containers have one name")
    if sum(map(is_kithd, containers)) > 1:
        wrong.append("two kithd on one run directory")
    if any(is_kithd(c) for c in pod["containers"]) and len(containers) > 1:
        wrong.append("kithd has to be a sidecar (initContainers with restartPolicy: Always): it is started first and ended last")
    for volume in set(volumes) - {m["name"] for c in containers for m in c["volumeMounts"]}:
        wrong.append(f"nobody mounts the volume {volume}")
    if not pod["securityContext"]["runAsNonRoot"]:
        wrong.append("the pod may run as root")
    if pod["automountServiceAccountToken"]:
        wrong.append("a token is mounted")
    if pod["terminationGracePeriodSeconds"] < 30:
        wrong.append("too little time to finish what was accepted")
    accounts = [d for d in docs if d["kind"] == "ServiceAccount" and d["metadata"]["name"] == pod["serviceAccountName"]]
    if not accounts or accounts[0]["automountServiceAccountToken"]:
        wrong.append(f"there is no service account {pod['serviceAccountName']} without a token")
    for volume in pod["volumes"]:
        if "configMap" in volume and not any(d["kind"] == "ConfigMap" and d["metadata"]["name"] == volume["configMap"]["name"]
                                             for d in docs):
            wrong.append(f"there is no config map {volume['configMap']['name']}")
        if "secret" in volume and volume["secret"].get("defaultMode", 0o644) & 0o007:
            wrong.append("the secret can be read by others, which kith-gateway refuses")
    if not selects(spec["selector"]["matchLabels"], labels):
        wrong.append("the selector does not match the pod's labels")
    if not any(d["kind"] == "NetworkPolicy" and set(d["spec"]["policyTypes"]) == {"Ingress", "Egress"} and
               "ingress" not in d["spec"] and selects(d["spec"]["podSelector"]["matchLabels"], labels) for d in docs):
        wrong.append("no network policy closes the pod")
    if spec.get("replicas", 1) > 1 and not any(
            d["kind"] == "PodDisruptionBudget" and selects(d["spec"]["selector"]["matchLabels"], labels) for d in docs):
        wrong.append("no disruption budget")
    if doc["kind"] == "StatefulSet":
        services = [d for d in docs if d["kind"] == "Service" and d["metadata"]["name"] == spec["serviceName"]]
        if not services or services[0]["spec"]["clusterIP"] != "None":
            wrong.append("no headless service: the stores are independent, and nothing may balance between them")
    return wrong


def check(docs):
    """All rules over the documents of an overlay, which are right by their schemas."""
    wrong = []
    workloads = [d for d in docs if d["kind"] in WORKLOADS]
    pods = [d["spec"]["template"] for d in workloads]
    for doc in docs:
        where, found = f"{doc['kind']} {doc['metadata']['name']}: ", []
        if doc["kind"] in WORKLOADS:
            found = check_workload(doc, docs)
        elif doc["kind"] == "Service":
            behind = [p for p in pods if selects(doc["spec"]["selector"], p["metadata"]["labels"])]
            ports = {port["name"]: port["containerPort"] for p in behind for c in p["spec"]["containers"]
                     for port in c.get("ports", [])}
            if not behind:
                found.append("selects no pod")
            for port in doc["spec"]["ports"]:
                if port["targetPort"] not in ports and port["targetPort"] not in ports.values():
                    found.append(f"no container has the port {port['targetPort']}")
        elif doc["kind"] == "PodDisruptionBudget":
            behind = [d for d in workloads if selects(doc["spec"]["selector"]["matchLabels"],
                                                      d["spec"]["template"]["metadata"]["labels"])]
            if not behind:
                found.append("selects no pod")
            elif doc["spec"].get("maxUnavailable") == 0 or doc["spec"].get("minAvailable", 0) >= behind[0]["spec"].get("replicas", 1):
                found.append("lets no node be drained")
        elif doc["kind"] == "NetworkPolicy":
            if not any(selects(doc["spec"]["podSelector"]["matchLabels"], p["metadata"]["labels"]) for p in pods):
                found.append("selects no pod")
        wrong += [where + text for text in found]
    names = [(d["kind"], d["metadata"]["name"]) for d in docs]
    if len(set(names)) != len(names):
        wrong.append("two documents have one name")
    return wrong


def check_compose(doc):
    """The same for compose.yaml."""
    wrong = []
    tmpfs = {name: v["driver_opts"]["o"] for name, v in doc["volumes"].items() if "driver_opts" in v}
    for name, service in doc["services"].items():
        words, found = service["command"], []
        found += command_line(words)
        found += ["healthcheck: " + text for text in command_line(service["healthcheck"]["test"][1:])]
        mounts = {m.split(":")[0]: m.split(":")[1:] for m in service["volumes"]}
        if RUN_VOLUME not in mounts or RUN_VOLUME not in tmpfs:
            found.append("the run directory is not the tmpfs")
        elif "size=" not in tmpfs[RUN_VOLUME]:
            found.append("the tmpfs has no size")
        else:
            size = re.search(r"size=(\d+)([mg])", tmpfs[RUN_VOLUME])
            size = int(size[1]) * {"m": 1, "g": 1024}[size[2]]
            kithd = os.path.basename(words[0]) == "kithd"
            if kithd and int(service["mem_limit"][:-1]) < size + KITHD_OWN_MIB:
                found.append(f"mem_limit leaves less than {KITHD_OWN_MIB} MiB beside the tmpfs")
            if kithd == (mounts[RUN_VOLUME][-1] == "ro"):
                found.append("the run directory is for kithd to write and for the others to read")
            if not (value_of(words, "--run") or "").startswith(mounts[RUN_VOLUME][0] + "/"):
                found.append("--run is not below the volume")
        for volume in mounts:
            if volume not in doc["volumes"]:
                found.append(f"there is no volume {volume}")
        if service["user"].split(":")[0] == "0":
            found.append("runs as root")
        wrong += [f"{name}: {text}" for text in found]
    return wrong
