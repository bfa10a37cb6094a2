"""What has to hold between the objects of an overlay, which no schema says: `problems(objects)` names what does not."""
import tomllib

NAMESPACE = "edgeveil"
CLUSTER_WIDE = {"Namespace"}
WORKLOADS = {"StatefulSet", "Deployment"}
# Seconds that a pod may stay on a node that is gone.
LONGEST_TOLERATION = 60


def name(thing):
    return f"{thing['kind']}/{thing['metadata']['name']}"


def of_kind(objects, *kinds):
    return [thing for thing in objects if thing["kind"] in kinds]


def pod(workload):
    return workload["spec"]["template"]


def matches(selector, labels):
    """A label selector with matchLabels alone, which is all that is used here."""
    if not set(selector) <= {"matchLabels"}:
        raise ValueError(f"selector {selector}: only matchLabels is understood")
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def containers(workload):
    spec = pod(workload)["spec"]
    return spec.get("initContainers", []) + spec["containers"]


def replicas(objects, workload):
    """The least number of pods there are of it."""
    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        if (target["kind"], target["name"]) == (workload["kind"], workload["metadata"]["name"]):
            return scaler["spec"].get("minReplicas", 1)
    return workload["spec"].get("replicas", 1)


def problems(objects):
    found = []
    for check in CHECKS:
        found += [f"{check.__name__}: {text}" for text in check(objects)]
    return found


def namespaces(objects):
    for thing in objects:
        if thing["kind"] not in CLUSTER_WIDE and thing["metadata"].get("namespace") != NAMESPACE:
            yield f"{name(thing)} is not in {NAMESPACE}"
    for thing in of_kind(objects, "Namespace"):
        if thing["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"{name(thing)} does not enforce restricted pods"


def selectors(objects):
    workloads = of_kind(objects, *WORKLOADS)
    services = of_kind(objects, "Service")
    for workload in workloads:
        if not matches(workload["spec"]["selector"], pod(workload)["metadata"]["labels"]):
            yield f"{name(workload)} does not select its own pods"
        others = [other for other in workloads if other is not workload]
        if any(matches(workload["spec"]["selector"], pod(other)["metadata"]["labels"]) for other in others):
            yield f"{name(workload)} selects another one's pods"
        if workload["kind"] == "StatefulSet" and workload["spec"]["serviceName"] not in [
            service["metadata"]["name"] for service in services
        ]:
            yield f"{name(workload)} names a Service that is not there"
    for service in services:
        selector = {"matchLabels": service["spec"]["selector"]}
        behind = [w for w in workloads if matches(selector, pod(w)["metadata"]["labels"])]
        if len(behind) != 1:
            yield f"{name(service)} selects the pods of {len(behind)} workloads"
        for workload in behind:
            there = {port["name"] for c in containers(workload) for port in c.get("ports", [])}
            for port in service["spec"]["ports"]:
                if port["targetPort"] not in there:
                    yield f"{name(service)}: port {port['targetPort']} is none of {name(workload)}"
    for budget in of_kind(objects, "PodDisruptionBudget"):
        behind = [w for w in workloads if matches(budget["spec"]["selector"], pod(w)["metadata"]["labels"])]
        if len(behind) != 1:
            yield f"{name(budget)} selects the pods of {len(behind)} workloads"
        for workload in behind:
            there = replicas(objects, workload)
            spared = budget["spec"].get("maxUnavailable", there - budget["spec"].get("minAvailable", 0))
            if not 1 <= spared:
                yield f"{name(budget)} lets no pod of {name(workload)} be moved: its node cannot be drained"
            if spared >= there:
                yield f"{name(budget)} lets all {there} pods of {name(workload)} go at once"
    for monitor in of_kind(objects, "ServiceMonitor"):
        behind = [s for s in services if matches(monitor["spec"]["selector"], s["metadata"].get("labels", {}))]
        if not behind:
            yield f"{name(monitor)} selects no Service"
        for endpoint in monitor["spec"]["endpoints"]:
            for service in behind:
                if endpoint["port"] not in [port["name"] for port in service["spec"]["ports"]]:
                    yield f"{name(monitor)}: {name(service)} has no port {endpoint['port']}"
    for route in of_kind(objects, "IngressRouteTCP"):
        if route["spec"].get("tls", {}).get("passthrough") is not True:
            yield f"{name(route)} does not pass TLS through: certificates would end at traefik"
        for rule in route["spec"]["routes"]:
            for target in rule["services"]:
                ports = [p["port"] for s in services if s["metadata"]["name"] == target["name"] for p in s["spec"]["ports"]]
                if target["port"] not in ports:
                    yield f"{name(route)} leads to {target}, which is not there"


def replicated(objects):
    """What there is several times of is spread over nodes and leaves them one by one."""
    workloads = of_kind(objects, *WORKLOADS)
    for workload in workloads:
        if replicas(objects, workload) < 2:
            continue
        labels = pod(workload)["metadata"]["labels"]
        if not any(matches(budget["spec"]["selector"], labels) for budget in of_kind(objects, "PodDisruptionBudget")):
            yield f"{name(workload)} has no PodDisruptionBudget: a drain may take all its pods at once"
        spreads = pod(workload)["spec"].get("topologySpreadConstraints", [])
        if not any(s["topologyKey"] == "kubernetes.io/hostname" and matches(s["labelSelector"], labels) for s in spreads):
            yield f"{name(workload)} is not spread over nodes"
        if workload["kind"] == "StatefulSet" and "cluster_formation" in str(configs(objects, workload)) \
                and workload["spec"].get("podManagementPolicy") != "Parallel":
            yield f"{name(workload)} starts one by one, but each waits for the others"
    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        scaled = [w for w in workloads if (w["kind"], w["metadata"]["name"]) == (target["kind"], target["name"])]
        if not scaled:
            yield f"{name(scaler)} scales {target}, which is not there"
        if scaler["spec"].get("minReplicas", 1) > scaler["spec"]["maxReplicas"]:
            yield f"{name(scaler)} wants more at the least than at the most"
        for workload in scaled:
            if "replicas" in workload["spec"]:
                yield f"{name(workload)} fixes its replicas, which {name(scaler)} sets"
            for container in containers(workload):
                if "cpu" not in container.get("resources", {}).get("requests", {}):
                    yield f"{name(scaler)} counts in shares of a cpu request that {container['name']} does not have"


def configs(objects, workload):
    """The ConfigMaps that it mounts, by name."""
    mounted = {volume["configMap"]["name"] for volume in pod(workload)["spec"].get("volumes", []) if "configMap" in volume}
    return {t["metadata"]["name"]: t.get("data", {}) for t in of_kind(objects, "ConfigMap") if t["metadata"]["name"] in mounted}


def references(objects):
    """Every Secret and ConfigMap, and every key that is named of it."""
    there = {}
    for thing in of_kind(objects, "Secret", "ConfigMap"):
        keys = set(thing.get("data", {})) | set(thing.get("stringData", {})) | set(thing.get("binaryData", {}))
        there[thing["kind"], thing["metadata"]["name"]] = keys
    for certificate in of_kind(objects, "Certificate"):
        there["Secret", certificate["spec"]["secretName"]] = {"ca.crt", "tls.crt", "tls.key"}
        issuers = [issuer["metadata"]["name"] for issuer in of_kind(objects, "Issuer")]
        if certificate["spec"]["issuerRef"]["name"] not in issuers:
            yield f"{name(certificate)} names an Issuer that is not there"
    wanted = []
    for issuer in of_kind(objects, "Issuer"):
        wanted += [(issuer, "Secret", issuer["spec"]["ca"]["secretName"], key) for key in ("tls.crt", "tls.key")]
    accounts = [account["metadata"]["name"] for account in of_kind(objects, "ServiceAccount")]
    for workload in of_kind(objects, *WORKLOADS):
        spec = pod(workload)["spec"]
        if spec.get("serviceAccountName") not in accounts:
            yield f"{name(workload)} has no ServiceAccount of its own"
        claims = [claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])]
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        files = {}
        for container in containers(workload):
            for mount in container.get("volumeMounts", []):
                if mount["name"] in claims:
                    continue
                if mount["name"] not in volumes:
                    yield f"{name(workload)} mounts {mount['name']}, which is no volume of its"
                    continue
                volume = volumes[mount["name"]]
                if "secret" in volume:
                    files[mount["mountPath"]] = ("Secret", volume["secret"]["secretName"])
                    for item in volume["secret"].get("items", []):
                        wanted.append((workload, "Secret", volume["secret"]["secretName"], item["key"]))
                        if item["path"] != item["key"]:
                            yield f"{name(workload)}: {item['key']} goes by another name, {item['path']}"
                    if volume["secret"].get("defaultMode") != 0o440:
                        yield f"{name(workload)}: the Secret {volume['secret']['secretName']} is readable for others"
                if "configMap" in volume:
                    files[mount["mountPath"]] = ("ConfigMap", volume["configMap"]["name"])
            paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            for mount in container.get("volumeMounts", []):
                # Its folder would have to be made there.
                if mount.get("readOnly") and any(path.startswith(mount["mountPath"] + "/") for path in paths):
                    yield f"{name(workload)} mounts something below {mount['mountPath']}, which is read-only"
            for variable in container.get("env", []):
                source = variable.get("valueFrom", {})
                for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                    if field in source:
                        wanted.append((workload, kind, source[field]["name"], source[field]["key"]))
            # Paths in arguments and variables, and in the settings, lead to keys.
            texts = container.get("args", []) + container.get("command", [])
            texts += [variable["value"] for variable in container.get("env", []) if "value" in variable]
            for data in configs(objects, workload).values():
                texts += data.values()
            for word in [word.strip('"') for text in texts for word in text.replace("=", " ").split()]:
                folder = next((folder for folder in files if word.startswith(folder + "/")), None)
                if folder:
                    wanted.append((workload, *files[folder], word.removeprefix(folder + "/")))
        for kind, which in files.values():
            wanted.append((workload, kind, which, None))
    for who, kind, which, key in wanted:
        if (kind, which) not in there:
            yield f"{name(who)} wants the {kind} {which}, which is not there"
        elif key is not None and key not in there[kind, which]:
            yield f"{name(who)} wants {key} of the {kind} {which}, which has {sorted(there[kind, which])}"


def hardened(objects):
    for workload in of_kind(objects, *WORKLOADS):
        spec = pod(workload)["spec"]
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{name(workload)} gets a token for the cluster that it has no use for"
        if spec.get("hostNetwork") or spec.get("hostPID") or spec.get("hostIPC"):
            yield f"{name(workload)} shares the node's namespaces"
        security = spec.get("securityContext", {})
        if not security.get("runAsNonRoot") or not security.get("runAsUser"):
            yield f"{name(workload)} may run as root"
        if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{name(workload)} has no seccomp profile"
        for container in containers(workload):
            own = container.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False or own.get("readOnlyRootFilesystem") is not True:
                yield f"{name(workload)}: {container['name']} may write its image or gain rights"
            if own.get("capabilities", {}).get("drop") != ["ALL"] or own.get("capabilities", {}).get("add"):
                yield f"{name(workload)}: {container['name']} keeps capabilities"


def bounded(objects):
    for workload in of_kind(objects, *WORKLOADS):
        spec = pod(workload)["spec"]
        for container in containers(workload):
            image = container["image"]
            tag = image.rpartition("/")[2].partition(":")[2]
            if not tag or tag.startswith("latest"):
                yield f"{name(workload)}: image {image} has no fixed version"
            resources = container.get("resources", {})
            for field in ("requests", "limits"):
                if not {"cpu", "memory"} <= set(resources.get(field, {})):
                    yield f"{name(workload)}: {container['name']} has no {field} of cpu and memory"
            if container in spec.get("initContainers", []):
                continue
            ports = {port["name"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                if probe not in container:
                    yield f"{name(workload)}: {container['name']} has no {probe}"
                    continue
                how = container[probe].get("httpGet") or container[probe].get("tcpSocket")
                if how and how["port"] not in ports:
                    yield f"{name(workload)}: {probe} asks port {how['port']}, which it does not have"
        waits = {t["key"]: t.get("tolerationSeconds", 10**9) for t in spec.get("tolerations", []) if t.get("effect") == "NoExecute"}
        for taint in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
            if waits.get(taint, 10**9) > LONGEST_TOLERATION:
                yield f"{name(workload)} stays long on a node with {taint}"
        for claim in workload["spec"].get("volumeClaimTemplates", []):
            if "storage" not in claim["spec"]["resources"].get("requests", {}):
                yield f"{name(workload)}: claim {claim['metadata']['name']} has no size"


def allowed(objects, direction, labels, port, protocol="TCP", peer=None, anywhere=False):
    """Whether a policy lets this port of (or, for Egress, from) pods with these labels through, to or from the peer: one
    with these labels, some or other one, or one that is no pod of these."""
    field, far = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    for policy in of_kind(objects, "NetworkPolicy"):
        spec = policy["spec"]
        if direction not in spec["policyTypes"] or not matches(spec["podSelector"], labels):
            continue
        for rule in spec.get(field, []):
            if not any(p["port"] == port and p["protocol"] == protocol for p in rule.get("ports", [])):
                continue
            far_ends = rule.get(far)
            if not far_ends or peer is None and not anywhere:
                return True
            if peer is None:
                continue
            if any(set(end) == {"podSelector"} and matches(end["podSelector"], peer) for end in far_ends):
                return True
    return False


def network(objects):
    workloads = of_kind(objects, *WORKLOADS)
    policies = of_kind(objects, "NetworkPolicy")
    everything = [p for p in policies if p["spec"]["podSelector"] == {} and set(p["spec"]["policyTypes"]) == {"Ingress", "Egress"}]
    if not any(not p["spec"].get("ingress") and not p["spec"].get("egress") for p in everything):
        yield "no policy forbids what is not allowed"
    for policy in policies:
        selected = [w for w in workloads if matches(policy["spec"]["podSelector"], pod(w)["metadata"]["labels"])]
        if not selected:
            yield f"{name(policy)} selects no pods"
        for rule in policy["spec"].get("ingress", []):
            for port in rule.get("ports", []):
                open_ports = [p["containerPort"] for w in selected for c in containers(w) for p in c.get("ports", [])]
                if port["port"] not in open_ports:
                    yield f"{name(policy)} opens {port['port']}, where nobody listens"
        for field in ("ingress", "egress"):
            if any(not rule.get("ports") for rule in policy["spec"].get(field, [])):
                yield f"{name(policy)} names no port"
    for workload in workloads:
        labels = pod(workload)["metadata"]["labels"]
        for container in containers(workload):
            for port in container.get("ports", []):
                if not allowed(objects, "Ingress", labels, port["containerPort"]):
                    yield f"nobody may reach port {port['containerPort']} of {name(workload)}"
        for host, port in destinations(objects, workload):
            # A Service, or a pod of a headless one.
            services = [s for s in of_kind(objects, "Service") if s["metadata"]["name"] in (host, host.partition(".")[2])]
            if not services and ("." not in host or host.endswith("-nodes")):
                yield f"{name(workload)} connects to {host}, which is no Service here"
            if not allowed(objects, "Egress", labels, 53, "UDP"):
                yield f"{name(workload)} may not ask for the address of {host}"
            peers = [
                pod(w)["metadata"]["labels"] for s in services for w in workloads
                if matches({"matchLabels": s["spec"]["selector"]}, pod(w)["metadata"]["labels"])
            ]
            for service in services:
                if port not in [p["port"] for p in service["spec"]["ports"]]:
                    yield f"{name(workload)} connects to {host}:{port}, a port that {name(service)} does not have"
            for peer in peers or [None]:
                if not allowed(objects, "Egress", labels, port, peer=peer, anywhere=not peers):
                    yield f"{name(workload)} may not connect to {host}:{port}"
            for peer in peers:
                if not allowed(objects, "Ingress", peer, port, peer=labels):
                    yield f"{host}:{port} does not let {name(workload)} in"


def destinations(objects, workload):
    """Where it connects to, by its settings and its environment."""
    settings, variables = {}, {}
    maps = {thing["metadata"]["name"]: thing.get("data", {}) for thing in of_kind(objects, "ConfigMap")}
    for data in configs(objects, workload).values():
        if "bridge.toml" in data:
            settings = tomllib.loads(data["bridge.toml"])
        for line in data.get("rabbitmq.conf", "").splitlines():
            key, _, value = line.partition(" = ")
            if key.startswith("cluster_formation.classic_config.nodes."):
                for port in (4369, 25672):
                    yield value.rpartition("@")[2], port
    for container in containers(workload):
        for variable in container.get("env", []):
            ref = variable.get("valueFrom", {}).get("configMapKeyRef")
            value = maps.get(ref["name"], {}).get(ref["key"], "") if ref else variable.get("value", "")
            variables[variable["name"].removeprefix("EDGEVEIL_BRIDGE_")] = value
    serves = any("serve" in container.get("args", []) for container in containers(workload))
    mqtt, amqp = settings.get("mqtt", {}), settings.get("amqp", {})
    if serves and "host" in mqtt:
        yield mqtt["host"], mqtt.get("port", 8883)
    if serves:
        for node in filter(None, amqp.get("hosts", "").replace(" ", "").split(",")):
            host, _, port = node.partition(":")
            yield host, int(port or 5671)
    # Its host is in a Secret, which names the server of the component postgres-server when there is one.
    if "CATALOG_POSTGRES_HOST" in variables:
        here = [s for s in of_kind(objects, "Service") if s["metadata"]["name"] == "edgeveil-postgres-rw"]
        yield "edgeveil-postgres-rw" if here else "postgres.example.org", 5432
    for place in ("OBJECTS", "ANONYMISE_INPUT", "ANONYMISE_OUTPUT"):
        if f"{place}_S3_BUCKET" in variables:
            url = variables.get(f"{place}_S3_ENDPOINT") or "https://s3.amazonaws.com"
            host, _, port = url.partition("://")[2].partition(":")
            yield host, int(port or 443)
    if "FORWARD_AWS_ENDPOINT" in variables:
        yield variables["FORWARD_AWS_ENDPOINT"], int(variables.get("FORWARD_AWS_PORT", 8883))


def certificates(objects):
    """A broker's certificate, where the cluster issues it, has the names by which bridges connect: each in full, since a
    wildcard needs two labels behind it."""
    workloads = of_kind(objects, *WORKLOADS)
    issued = {c["spec"]["secretName"]: c["spec"].get("dnsNames", []) for c in of_kind(objects, "Certificate")}
    for workload in workloads:
        for host, port in destinations(objects, workload):
            # The brokers among themselves speak without TLS.
            services = [s for s in of_kind(objects, "Service") if s["metadata"]["name"] in (host, host.partition(".")[2])]
            for other in workloads:
                labels = pod(other)["metadata"]["labels"]
                if other is workload or not any(matches({"matchLabels": s["spec"]["selector"]}, labels) for s in services):
                    continue
                for volume in pod(other)["spec"].get("volumes", []):
                    names = issued.get(volume.get("secret", {}).get("secretName"))
                    if names is not None and host not in names:
                        yield f"{name(workload)} connects to {host}:{port}, whose certificate is for {names}"


CHECKS = [namespaces, selectors, replicated, references, hardened, bounded, network, certificates]
