"""Checks the manifests beside this file; see the script `check`. Argument: the solond to check the configuration with."""

import copy
import pathlib
import subprocess
import sys

import jsonpatch
import kubernetes_validate
import yaml

HERE = pathlib.Path(__file__).parent
# The oldest that its makers still mend, some between, and the newest that the validator knows.
VERSIONS = ["1.29", "1.33", "1.37"]
PATHS = {"/livez", "/readyz", "/metrics"}


def resources(folder):
    """What `kubectl apply -k` would send for a folder, without the suffix of generated names."""
    custom = yaml.safe_load((folder / "kustomization.yaml").read_text())
    found = []
    for name in custom.get("resources", []):
        path = folder / name
        found += resources(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))
    for generator in custom.get("configMapGenerator", []):
        data = {name: (folder / name).read_text() for name in generator["files"]}
        found.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data})
    for patch in custom.get("patches", []):
        target = patch["target"]
        at = [i for i, it in enumerate(found) if (it["kind"], it["metadata"]["name"]) == (target["kind"], target["name"])]
        assert len(at) == 1, f"{folder.name}: the patch's target {target} is there {len(at)} times, expected once"
        operations = yaml.safe_load((folder / patch["path"]).read_text())
        # YAML's anchors make one object of two places, and a patch is for one of them.
        found[at[0]] = jsonpatch.apply_patch(unshared(found[at[0]]), operations)
    return found


def unshared(value):
    if isinstance(value, dict):
        return {key: unshared(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unshared(item) for item in value]
    return copy.copy(value)


def one(found, kind):
    fitting = [it for it in found if it["kind"] == kind]
    assert len(fitting) == 1, f"{len(fitting)} of kind {kind}, expected one"
    return fitting[0]


def agree(found):
    """What no schema knows: names in one resource that another one must have."""
    daemon, service, config = one(found, "StatefulSet"), one(found, "Service"), one(found, "ConfigMap")
    template = daemon["spec"]["template"]
    labels, pod = template["metadata"]["labels"], template["spec"]
    for selector in (service["spec"]["selector"], daemon["spec"]["selector"]["matchLabels"]):
        assert selector.items() <= labels.items(), f"{selector} selects no pod with {labels}"
    assert daemon["spec"]["serviceName"] == service["metadata"]["name"]
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for port in service["spec"]["ports"]:
        assert ports[port["targetPort"]] == port["port"], f"port {port['name']}"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        get = container[probe]["httpGet"]
        assert get["port"] == "admin" and get["path"] in PATHS, f"{probe}: {get}"
    notes = template["metadata"]["annotations"]
    assert int(notes["prometheus.io/port"]) == ports["admin"] and notes["prometheus.io/path"] in PATHS
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    claims = {claim["metadata"]["name"] for claim in daemon["spec"]["volumeClaimTemplates"]}
    mounts = [mount["name"] for part in pod["initContainers"] + pod["containers"] for mount in part["volumeMounts"]]
    assert set(mounts) == set(volumes) | claims, f"mounted: {mounts}, there are: {set(volumes) | claims}"
    assert volumes["config"]["configMap"]["name"] == config["metadata"]["name"]
    for part in pod["initContainers"] + pod["containers"]:
        assert part["resources"]["requests"] == part["resources"]["limits"], f"{part['name']} is not of the class Guaranteed"
        assert part["securityContext"]["capabilities"]["drop"] == ["ALL"]
    return config["data"]["solond.toml"]


def main(solond):
    for folder in ("base", "rdma"):
        found = resources(HERE / folder)
        for resource in found:
            for version in VERSIONS:
                kubernetes_validate.validate(resource, version, strict=True)
        text = agree(found)
        answer = subprocess.run(
            [solond, "--config", "/dev/stdin", "--check-config"], input=text, capture_output=True, text=True, check=False
        )
        assert answer.returncode == 0, f"{folder}: solond refuses the configuration:\n{answer.stderr}"
        kinds = ", ".join(it["kind"] for it in found)
        print(f"{folder}: {kinds}: valid for Kubernetes {', '.join(VERSIONS)}; solond takes its configuration")
    # The validator must be able to say no.
    broken = resources(HERE / "base")
    one(broken, "StatefulSet")["spec"]["template"]["spec"]["containers"][0]["livenessProb"] = {}
    try:
        kubernetes_validate.validate(one(broken, "StatefulSet"), VERSIONS[-1], strict=True)
    except kubernetes_validate.ValidationError:
        return
    raise SystemExit("the validator takes a field that does not exist")


if __name__ == "__main__":
    main(sys.argv[1])
