"""The manifests are what Kubernetes takes, and fit each other, the image and the settings.

Kubernetes' own schemas come with the package kubernetes-validate.  No cluster has run them here.
Objects of operators (KEDA, Prometheus Operator) have no schema in it: their fields are compared
with what they refer to.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from profiles.config import Settings, load_settings
from profiles.topics import Topics
from profiles.web_policy import WebPolicy
from tests.docker_settings import commands, image_environment, variables
from tests.monitoring import DOCKER, RULES, read, read_all

pytestmark = pytest.mark.unit

Object = dict[str, Any]  # Any: a Kubernetes object
PLAIN = DOCKER / "kubernetes"
OPERATORS = PLAIN / "operators"
VERSION = "1.37"
TOKEN = "0123456789abcdef"
BY_REFERENCE = {
    "DRIFTLINE_BROKER__USERNAME": "worker",
    "DRIFTLINE_BROKER__PASSWORD": "secret",
    "DRIFTLINE_SECURITY__API_TOKEN": TOKEN,
}


def objects(directory: Path = PLAIN) -> list[Object]:
    """What the directory's kustomization names."""
    names = read(directory / "kustomization.yaml")["resources"]
    assert {path.name for path in directory.glob("*.yaml")} == {*names, "kustomization.yaml"}
    return [found for name in names for found in read_all(directory / name)]


def of_kind(*kinds: str, directory: Path = PLAIN) -> list[Object]:
    found = [found for found in objects(directory) if found["kind"] in kinds]
    assert found
    return found


def pods() -> Iterator[tuple[Object, Object, Object]]:
    """Every object that starts pods, with the pod's template and its one container."""
    for owner in of_kind("StatefulSet", "Deployment", "Job"):
        template = owner["spec"]["template"]
        (container,) = template["spec"]["containers"]
        yield owner, template, container


def named(owner: Object) -> str:
    return str(owner["metadata"]["name"])


@pytest.mark.parametrize("found", objects(), ids=lambda o: f"{o['kind']}-{named(o)}")
def test_kubernetes_own_schema_accepts_every_object(found: Object) -> None:
    kubernetes_validate.validate(found, VERSION, strict=True)


def test_a_misspelt_field_would_be_noticed() -> None:
    (owner, *_) = of_kind("StatefulSet")
    wrong = {**owner, "spec": {**owner["spec"], "replica": 3}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


def test_pods_run_commands_with_settings_that_exist_and_are_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (shared,) = of_kind("ConfigMap")
    known = {*variables(Settings), "HOME", "POD_NAME"}
    for owner, template, container in pods():
        words = tuple(word for word in container["args"] if re.fullmatch(r"[a-z]+", word))
        assert words in commands(), named(owner)
        assert container["envFrom"] == [{"configMapRef": {"name": named(shared)}}]
        given = {entry["name"]: entry.get("value") for entry in container["env"]}
        environment = {**image_environment(), **shared["data"], **given}
        assert environment.keys() <= known, named(owner)
        by_reference = {name for name, value in given.items() if value is None}
        assert by_reference <= {*BY_REFERENCE, "POD_NAME"}, "a secret is not written down"
        with monkeypatch.context() as patched:
            for name, value in {**environment, **BY_REFERENCE}.items():
                if name in environment and name.startswith("DRIFTLINE_"):
                    patched.setenv(name, value if value is not None else BY_REFERENCE[name])
            settings = load_settings()
        if owner["kind"] == "Job":
            continue
        WebPolicy.of(settings.security, settings.http.host, "http.host")  # else it would not start
        (port,) = container["ports"]
        expected = settings.api.port if named(owner).endswith("api") else settings.http.port
        assert port["containerPort"] == expected
        # What settings name as files is mounted.
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert settings.store.directory.as_posix() in mounts
        assert str(settings.store.releases) in mounts
        files = [value for value in environment.values() if value and "/run/secrets/" in value]
        held = mounted_files(template["spec"], container)
        for value in files:
            (path,) = re.findall(r"/run/secrets/[\w./-]+", value)
            is_needed = named(owner) != "driftline-api" or "trusted" not in path
            assert path in held or not is_needed, f"{named(owner)}: {path}"


def mounted_files(pod: Object, container: Object) -> set[str]:
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    return {
        f"{mount['mountPath']}/{item['path']}"
        for mount in container["volumeMounts"]
        for item in volumes.get(mount["name"], {}).get("secret", {}).get("items", ())
    }


def test_every_pod_is_locked_down_and_says_what_it_needs() -> None:
    for owner, template, container in pods():
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False, named(owner)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        resources = container["resources"]
        assert {"cpu", "memory"} <= resources["requests"].keys()
        assert "memory" in resources["limits"]
        # The root is read only: what is written lies on a volume.
        volumes = {volume["name"] for volume in pod["volumes"]} | {
            claim["metadata"]["name"] for claim in owner["spec"].get("volumeClaimTemplates", ())
        }
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert set(mounts.values()) == volumes
        assert "/tmp" in mounts
    user = re.search(r"^USER (\d+):(\d+)$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    assert user is not None
    assert user.groups() == ("10001", "10001")


def test_only_the_learner_may_write_releases_and_holds_the_signing_key() -> None:
    for owner, template, container in pods():
        is_learner = named(owner) == "driftline-learner"
        for mount in container["volumeMounts"]:
            if mount["name"] == "releases":
                assert mount.get("readOnly", False) != is_learner
        held = mounted_files(template["spec"], container)
        assert any(path.endswith("signing.pem") for path in held) == is_learner
    (claim,) = of_kind("PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_probes_ask_what_the_processes_answer() -> None:
    for owner, template, container in pods():
        if owner["kind"] == "Job":
            continue
        (port,) = container["ports"]
        paths = {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
        for probe, path in paths.items():
            asked = container[f"{probe}Probe"]["httpGet"]
            assert asked == {"path": path, "port": port["name"]}
        # Stopping takes up to 18 s (stream/app.py).
        assert template["spec"]["terminationGracePeriodSeconds"] >= 20


def test_services_budgets_and_policies_select_pods_that_exist() -> None:
    labels = [template["metadata"]["labels"] for _, template, _ in pods()]

    def selects(wanted: dict[str, str]) -> bool:
        return any(wanted.items() <= found.items() for found in labels)

    for service in of_kind("Service"):
        assert selects(service["spec"]["selector"])
        (chosen,) = [
            container
            for _, template, container in pods()
            if service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
        ]
        (port,) = service["spec"]["ports"]
        assert port["targetPort"] in {found["name"] for found in chosen["ports"]}
        assert port["port"] in {found["containerPort"] for found in chosen["ports"]}
    for owner in of_kind("StatefulSet", "Deployment", "PodDisruptionBudget"):
        assert selects(owner["spec"]["selector"]["matchLabels"]), named(owner)
    for owner in of_kind("StatefulSet"):
        assert owner["spec"]["serviceName"] in {named(found) for found in of_kind("Service")}
    policies = {named(found): found["spec"] for found in of_kind("NetworkPolicy")}
    closed = policies.pop("driftline-closed")
    assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    opened = {
        port["port"]
        for spec in policies.values()
        for rule in spec.get("ingress", ())
        for port in rule["ports"]
    }
    assert opened == {found["port"] for s in of_kind("Service") for found in s["spec"]["ports"]}
    (shared,) = of_kind("ConfigMap")
    kafka = int(shared["data"]["DRIFTLINE_BROKER__BOOTSTRAP"].rpartition(":")[2])
    (outwards,) = [spec for spec in policies.values() if "egress" in spec]
    assert kafka in {port["port"] for rule in outwards["egress"] for port in rule["ports"]}


def test_secrets_that_pods_want_are_those_that_the_first_lines_make() -> None:
    told = (PLAIN / "kustomization.yaml").read_text()
    made = set(re.findall(r"create secret generic ([\w-]+)", told))
    keys = set(re.findall(r"--from-(?:literal|file)=([\w.-]+)", told))
    wanted: set[str] = set()
    for _, template, container in pods():
        for volume in template["spec"]["volumes"]:
            if "secret" in volume:
                assert volume["secret"]["secretName"] in made
                wanted |= {item["key"] for item in volume["secret"]["items"]}
        for entry in container["env"]:
            if "secretKeyRef" in entry.get("valueFrom", {}):
                assert entry["valueFrom"]["secretKeyRef"]["name"] in made
                wanted.add(entry["valueFrom"]["secretKeyRef"]["key"])
    assert wanted == keys


def test_workers_are_scaled_by_the_lag_of_their_group_up_to_the_partitions() -> None:
    (shared,) = of_kind("ConfigMap")
    (scaled,) = of_kind("ScaledObject", directory=OPERATORS)
    spec = scaled["spec"]
    target = (spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"])
    assert target in {(owner["kind"], named(owner)) for owner, *_ in pods()}
    assert spec["maxReplicaCount"] == int(shared["data"]["DRIFTLINE_TOPICS__PARTITIONS"])
    (trigger,) = spec["triggers"]
    assert trigger["type"] == "kafka"
    asked = trigger["metadata"]
    assert asked["bootstrapServers"] == shared["data"]["DRIFTLINE_BROKER__BOOTSTRAP"]
    assert asked["topic"] == Topics.under().events
    assert asked["consumerGroup"] == load_settings().serving.group
    mechanism = shared["data"]["DRIFTLINE_BROKER__SASL_MECHANISM"]
    assert asked["sasl"] == mechanism.lower().replace("-sha-", "_sha")
    (login,) = of_kind("TriggerAuthentication", directory=OPERATORS)
    assert trigger["authenticationRef"]["name"] == named(login)


def test_scraped_jobs_are_those_that_the_alerts_name() -> None:
    (monitor,) = of_kind("ServiceMonitor", directory=OPERATORS)
    services = of_kind("Service")
    jobs = {service["metadata"]["labels"][monitor["spec"]["jobLabel"]] for service in services}
    assert set(re.findall(r'job="([\w-]+)"', RULES.read_text())) <= jobs
    chosen = monitor["spec"]["selector"]["matchLabels"].items()
    assert all(chosen <= service["metadata"]["labels"].items() for service in services)
    ports = {port["name"] for service in services for port in service["spec"]["ports"]}
    assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} == ports


def test_the_operators_rules_are_prometheus_own_file() -> None:
    (rules,) = of_kind("PrometheusRule", directory=OPERATORS)
    assert rules["spec"] == read(RULES), "run `make dashboards`"


def test_hadolint_has_nothing_to_say_about_the_image() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [str(hadolint), str(DOCKER / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
