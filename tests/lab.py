"""A real mosquitto or RabbitMQ with mutual TLS and a bridge with SQLite or PostgreSQL in a temporary folder, for the scripts that measure."""
import glob, json, os, re, shutil, socket, sqlite3, subprocess, sys, tempfile, threading, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
os.chdir(ROOT)
os.environ["PATH"] += ":/usr/sbin:/sbin"
TARGET = os.environ.get("CARGO_TARGET_DIR", "target")
AGENT, BRIDGE = (os.path.join(TARGET, "release", name) for name in ("edgeveil-agent", "edgeveil-bridge"))
# Makes records and is not measured itself. With the tests' profile the programs keep the features they ship with.
LOAD = os.path.join(TARGET, "debug", "examples", "load")
PATIENCE = 1800  # bounds what hangs; measures nothing
TICK = os.sysconf("SC_CLK_TCK")


def run(*command, **more):
    return subprocess.run(command, check=True, **more)


def build(done, *more):
    """`more` is for the release builds; a later `--built` finds them as they are then."""
    run("tests/need", "mosquitto:mosquitto", "mosquitto_pub:mosquitto-clients")
    if done:
        return
    run("cargo", "build", "--quiet", "--release", "--locked", "--package", "edgeveil-agent", "--package", "edgeveil-bridge", *more)
    run("cargo", "build", "--quiet", "--locked", "--workspace", "--example", "load")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what, look):
    end = time.monotonic() + PATIENCE
    while not look():
        if time.monotonic() > end:
            sys.exit(f"not seen within {PATIENCE} s: {what}")
        time.sleep(0.02)


def write(path, text):
    with open(path, "w") as file:
        file.write(text)
    return path


def load_average():
    with open("/proc/loadavg") as file:
        return float(file.read().split()[0])


class Lab:
    """Used with `with`: all that it has started ends with it, and its folder goes."""
    def __init__(self, agent=AGENT, catalog="sqlite", replicas=1, bridge_more="", broker="mosquitto", users=()):
        """`broker` is "mosquitto", "rabbitmq", or "embedded" for the bridge's own. `users` are the devices that RabbitMQ is to know;
        the others know all that have a certificate."""
        if catalog == "sqlite" and replicas > 1:
            raise ValueError("replicas share a PostgreSQL")
        self.agent_program, self.processes, self.port = agent, [], free_port()
        self.catalog, self.replicas, self.bridge_more, self.users = catalog, replicas, bridge_more, users
        self.embedded, self.with_rabbit = broker == "embedded", broker == "rabbitmq"
        if self.embedded and replicas > 1:
            raise ValueError("replicas share a broker")
        self.folder = tempfile.mkdtemp(prefix="edgeveil-lab-")

    def __enter__(self):
        try:
            self.begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
                process.wait(60)
        shutil.rmtree(self.folder)

    def begin(self):
        folder = self.folder
        for what in (["init"], ["broker", "localhost"], ["device", "bridge"]):
            run(BRIDGE, "certs", *what, "--dir", f"{folder}/certs", stdout=subprocess.DEVNULL)
        if not self.embedded:
            self.broker = self.rabbitmq() if self.with_rabbit else self.mosquitto()
            until("the broker", self.listens)
        catalog = self.postgres() if self.catalog == "postgres" else ""
        # Replicas have a folder of objects in common, a certificate, and a client id each.
        os.mkdir(f"{folder}/objects")
        self.bridges = [self.start_bridge(n, catalog) for n in range(self.replicas)]
        self.bridge = self.bridges[0]
        for n in range(self.replicas):
            said = "consuming" if self.with_rabbit else "pages on" if self.embedded else "subscribed"
            until("the bridge", lambda: said in self.read(self.bridge_file(n, "log")) or self.bridges[n].poll() is not None)
            if self.bridges[n].poll() is not None:
                sys.exit(f"the bridge ended: {self.read(self.bridge_file(n, 'log'))}")

    def mosquitto(self):
        folder = self.folder
        broker = f"{folder}/certs/brokers/localhost"
        write(f"{folder}/mosquitto.conf", f"""
user root
listener {self.port} 127.0.0.1
cafile {folder}/certs/ca.pem
certfile {broker}/cert.pem
keyfile {broker}/key.pem
require_certificate true
use_identity_as_username true
allow_anonymous false
acl_file {ROOT}/certs/mosquitto.acl
persistence false
max_queued_messages 0
set_tcp_nodelay true
log_type error
""")
        return self.start("mosquitto", "-c", f"{folder}/mosquitto.conf", log="mosquitto.log")

    def rabbitmq(self):
        """One node, set up as docs/rabbitmq.md says, with an epmd of its own."""
        folder, epmd = self.folder, free_port()
        home, broker = f"{folder}/rabbit", f"{folder}/certs/brokers/localhost"
        os.mkdir(home)
        self.amqp_port = free_port()
        with open(f"{ROOT}/docs/rabbitmq.md") as file:
            shown = file.read()
        config = shown.split("```ini\n")[1].split("```")[0]
        for there, here in {"/etc/rabbitmq/ca.pem": f"{folder}/certs/ca.pem", "/etc/rabbitmq/cert.pem": f"{broker}/cert.pem",
                            "/etc/rabbitmq/key.pem": f"{broker}/key.pem", "ssl.default = 8883": f"ssl.1 = 127.0.0.1:{self.port}",
                            "ssl.default = 5671": f"ssl.1 = 127.0.0.1:{self.amqp_port}"}.items():
            if there not in config:
                sys.exit(f"docs/rabbitmq.md does not show {there}")
            config = config.replace(there, here)
        line = lambda command, user: next(at for at in shown.splitlines() if f"rabbitmqctl {command} {user} " in at)
        users, permissions, topics = [], [], []
        for like, name in [("desk-pi", user) for user in self.users] + [("bridge", "bridge")]:
            own = lambda command: line(command, like).replace(like, name).split("'")[1::2]
            users.append({"name": name, "password_hash": "", "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": []})
            permissions.append(dict(zip(("configure", "write", "read"), own("set_permissions")), user=name, vhost="/"))
            topics.append(dict(zip(("write", "read"), own("set_topic_permissions")), user=name, vhost="/", exchange="amq.topic"))
        definitions = {"vhosts": [{"name": "/"}], "users": users, "permissions": permissions, "topic_permissions": topics}
        write(f"{home}/definitions.json", json.dumps(definitions))
        write(f"{home}/rabbitmq.conf", config + f"load_definitions = {home}/definitions.json\nlog.console = true\nlog.file = false\n"
              "disk_free_limit.absolute = 50MB\n")
        write(f"{home}/plugins", "[rabbitmq_mqtt,rabbitmq_auth_mechanism_ssl].\n")
        self.start("epmd", "-address", "127.0.0.1", "-port", str(epmd), log="epmd.log")
        own = {"HOME": home, "LANG": "C.UTF-8", "ERL_EPMD_PORT": str(epmd), "ERL_EPMD_ADDRESS": "127.0.0.1", "RUNNING_UNDER_SYSTEMD": "true",
               "RABBITMQ_NODENAME": "load@localhost", "RABBITMQ_DIST_PORT": str(free_port()), "RABBITMQ_LOGS": "-",
               "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false"}
        for variable, name in {"CONF_ENV_FILE": "none", "CONFIG_FILE": "rabbitmq.conf", "ADVANCED_CONFIG_FILE": "advanced.config",
                               "ENABLED_PLUGINS_FILE": "plugins", "GENERATED_CONFIG_DIR": "generated", "FEATURE_FLAGS_FILE": "feature_flags",
                               "MNESIA_BASE": "data", "LOG_BASE": "log", "PID_FILE": "pid"}.items():
            own[f"RABBITMQ_{variable}"] = f"{home}/{name}"
        # The script becomes the Erlang machine.
        return self.start("/usr/lib/rabbitmq/bin/rabbitmq-server", log="rabbitmq.log", env={**os.environ, **own}, cwd=home)

    def bridge_file(self, n, kind):
        return f"bridge.{kind}" if n == 0 else f"bridge-{n + 1}.{kind}"

    def start_bridge(self, n, catalog):
        folder, (ca, cert, key) = self.folder, self.identity("bridge")
        source = f'[mqtt]\nhost = "localhost"\nport = {self.port}\nclient_id = "bridge-{n + 1}"'
        if self.with_rabbit:
            source = f'[amqp]\nhosts = "localhost:{self.amqp_port}"'
        if self.embedded:
            source = f'[broker]\nlisten = "127.0.0.1:{self.port}"'
            cert, key = (f"{folder}/certs/brokers/localhost/{name}.pem" for name in ("cert", "key"))
        config = write(f"{folder}/{self.bridge_file(n, 'toml')}", f"""
data_dir = "{folder}/bridge{'' if n == 0 else f'-{n + 1}'}"
{source}
ca = "{ca}"
cert = "{cert}"
key = "{key}"
[http]
listen = "127.0.0.1:0"
[objects]
folder = "{folder}/objects"
{catalog}
{self.bridge_more}
""")
        return self.start(BRIDGE, "serve", "--config", config, log=self.bridge_file(n, "log"))

    def postgres(self):
        """Starts one, which the bridge reaches by its socket; gives the bridge's settings."""
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: int(path.split("/")[4]))
        if not found:
            sys.exit("no PostgreSQL below /usr/lib/postgresql")
        folder = f"{self.folder}/postgres"
        os.mkdir(folder)
        # It refuses to run as root.
        other = {"user": 65534, "group": 65534} if os.geteuid() == 0 else {}
        if other:
            os.chown(folder, 65534, 65534)
            os.chmod(self.folder, 0o711)
        data = f"{folder}/data"
        run(f"{found[-1]}/initdb", "-D", data, "--no-sync", "-U", "edgeveil", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8",
            stdout=subprocess.DEVNULL, cwd=folder, **other)
        self.database = self.start(f"{found[-1]}/postgres", "-D", data, "-k", folder, "-h", "", log="postgres.log", cwd=folder, **other)
        ask = ("psql", "-h", folder, "-U", "edgeveil", "-d", "postgres", "-qc")
        until("PostgreSQL", lambda: subprocess.run([*ask, "SELECT 1"], capture_output=True).returncode == 0)
        run(*ask, "CREATE DATABASE edgeveil")
        return f'[catalog.postgres]\nhost = "{folder}"\nallow_plain = true'

    def verify(self):
        """No gap, no double, no row without its object: ends the script otherwise."""
        said = subprocess.run([BRIDGE, "verify", "--gapless", "--config", f"{self.folder}/bridge.toml"], capture_output=True, text=True)
        if said.returncode != 0:
            sys.exit(f"the run is not whole: {said.stdout[-2000:]}{said.stderr}")

    def listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def start(self, *command, log, **more):
        with open(f"{self.folder}/{log}", "w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, **more)
        self.processes.append(process)
        return process

    def read(self, log):
        with open(f"{self.folder}/{log}") as file:
            return file.read()

    def identity(self, device):
        folder = f"{self.folder}/certs/devices/{device}"
        if not os.path.isdir(folder):
            run(BRIDGE, "certs", "device", device, "--dir", f"{self.folder}/certs", stdout=subprocess.DEVNULL)
        return f"{self.folder}/certs/ca.pem", f"{folder}/cert.pem", f"{folder}/key.pem"

    def settings(self, device, more=""):
        ca, cert, key = self.identity(device)
        return write(f"{self.folder}/{device}.toml", f"""
[device]
data_dir = "{self.folder}/{device}"
[link]
host = "localhost"
port = {self.port}
ca = "{ca}"
cert = "{cert}"
key = "{key}"
[spool]
min_free = "0 B"
{more}
""")

    def agent(self, device, more="", every=0.1):
        """Starts an agent; comes back once it is connected, with the seconds until it had started."""
        config, log, began = self.settings(device, more), f"{device}.log", time.monotonic()
        agent = Watched(self.start(self.agent_program, "run", "--config", config, log=log), every)
        said = lambda word: lambda: word in self.read(log) or agent.process.poll() is not None
        until("the agent", said(" started "))
        started = time.monotonic() - began
        until("a connection", said(" connected "))
        if agent.process.poll() is not None:
            sys.exit(f"the agent ended: {self.read(log)}")
        return agent, started

    def fill(self, device, readings, images):
        """Gives a device's agent, which does not run, a backlog."""
        run(LOAD, "fill", f"{self.folder}/{device}/spool", device, str(readings), str(images))

    def waiting(self, device):
        """Readings and images in the spool of an agent that does not run."""
        said = run(self.agent_program, "spool", "ls", "--dir", f"{self.folder}/{device}/spool", capture_output=True, text=True)
        lanes = dict(line.split()[:2] for line in said.stdout.splitlines())
        return int(lanes["reading"]), int(lanes["image"])

    def count(self, device):
        """Readings and images of a device that the bridge has."""
        catalog = sqlite3.connect(f"file:{self.folder}/bridge/catalog.sqlite?mode=ro", uri=True)
        try:
            one = lambda table: catalog.execute(f"SELECT count(*) FROM {table} WHERE device = ?", (device,)).fetchone()[0]
            return one("reading"), one("image")
        finally:
            catalog.close()

    def arrived(self, device, readings, images):
        """Asks seldom: counting costs the bridge's disk and processor."""
        end = time.monotonic() + PATIENCE
        while self.count(device) != (readings, images):
            if time.monotonic() > end:
                sys.exit(f"of {device} only {self.count(device)} arrived")
            time.sleep(0.2)


class Watched:
    """A process whose memory is looked at again and again."""
    def __init__(self, process, every):
        self.process, self.every, self.pss, self.over = process, every, [], threading.Event()
        self.thread = threading.Thread(target=self.look)
        self.thread.start()

    def look(self):
        while not self.over.wait(self.every):
            try:
                with open(f"/proc/{self.process.pid}/smaps_rollup") as file:
                    self.pss.append(next(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1024)
            except (OSError, StopIteration):
                return

    def threads(self):
        names = []
        for task in os.listdir(f"/proc/{self.process.pid}/task"):
            with open(f"/proc/{self.process.pid}/task/{task}/comm") as file:
                names.append(file.read().strip())
        return sorted(names)

    def mappings(self):
        """PSS in KiB by kind of mapping: those of the program and libraries by their rights."""
        found, kind = {}, None
        with open(f"/proc/{self.process.pid}/smaps") as file:
            for line in file:
                if head := re.match(r"[0-9a-f]+-[0-9a-f]+ (\S+) \S+ \S+ \S+\s*(.*)", line):
                    rights, name = head.groups()
                    kind = f"{os.path.basename(name)} {rights}" if name.startswith("/") else name or f"anonymous {rights}"
                elif line.startswith("Pss:"):
                    found[kind] = found.get(kind, 0) + int(line.split()[1])
        return dict(sorted(found.items(), key=lambda one: -one[1]))

    def cpu(self):
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def stop(self):
        """Gives the seconds of processor time it has taken."""
        cpu = self.cpu()
        self.over.set()
        self.thread.join()
        self.process.terminate()
        self.process.wait(60)
        return cpu
