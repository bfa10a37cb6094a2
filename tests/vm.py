"""Virtual machines of Debian's kernels and packages, for the scripts that need a whole system.

Packages are fetched with lists of their own and unpacked: nothing is installed on this machine, and nothing of the guest's
runs before it boots, so a guest of another architecture is made as quickly. All is kept below ~/.cache/edgeveil/vm.
"""
import glob, hashlib, json, os, re, shutil, socket, subprocess, sys, tempfile, threading, time
from lab import PATIENCE, free_port, run, until, write

CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "edgeveil/vm")
RELEASE = "bookworm"


def said(*command, **more):
    return run(*command, stdout=subprocess.PIPE, text=True, **more).stdout


class Archive:
    """Debian's packages of one architecture and release, apart from the lists of this machine."""
    def __init__(self, arch, release=RELEASE):
        sites = said("apt-get", "indextargets", "--format", "$(SITE)").splitlines()
        site = next((site.rstrip("/") for site in sites if site.rstrip("/").endswith("/debian")), None)
        if not site:
            sys.exit("apt on this machine knows no Debian archive; add one to /etc/apt/sources.list.d")
        self.arch, self.folder = arch, f"{CACHE}/apt-{arch}-{release}"
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in ("state/lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d", "none"):
            os.makedirs(f"{self.folder}/{name}")
        write(f"{self.folder}/status", "")
        write(f"{self.folder}/etc/sources.list",
              f"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {site} {release} main\n")
        self.environment = os.environ | {"APT_CONFIG": write(f"{self.folder}/apt.conf", f"""
Dir "{self.folder}"; Dir::State "state"; Dir::State::status "{self.folder}/status"; Dir::Cache "cache"; Dir::Etc "etc";
Dir::Etc::sourcelist "sources.list"; Dir::Etc::sourceparts "none"; Dir::Etc::trustedparts "/usr/share/keyrings/";
APT::Architecture "{arch}"; APT::Architectures {{ "{arch}"; }};
APT::Install-Recommends "false"; Acquire::Languages "none"; APT::Sandbox::User "root";
""")}
        run("apt-get", "-qq", "update", env=self.environment)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder)

    def with_dependencies(self, *packages):
        """Files of the packages and of all that they depend on."""
        run("apt-get", "-qq", "--yes", "--download-only", "install", *packages, env=self.environment, stdout=subprocess.DEVNULL)
        return sorted(glob.glob(f"{self.folder}/cache/archives/*.deb"))

    def one(self, package):
        folder = tempfile.mkdtemp(dir=self.folder)
        run("apt-get", "-qq", "download", package, env=self.environment, cwd=folder, stdout=subprocess.DEVNULL)
        [deb] = glob.glob(f"{folder}/*.deb")
        return deb

    def kernel(self, flavour, into):
        """Unpacks a kernel with its modules, and tells its version."""
        depends = said("apt-cache", "depends", f"linux-image-{flavour}", env=self.environment)
        run("dpkg-deb", "-x", self.one(re.search(r"Depends: (linux-image-\S+)", depends).group(1)), into)
        [version] = os.listdir(f"{into}/lib/modules")
        run("depmod", "-b", into, version)
        return version


def kept(name, make, *recipe):
    """A folder in the cache that `make` has filled; made anew when the recipe is another one."""
    folder, mark = f"{CACHE}/{name}", hashlib.sha256(repr(recipe).encode()).hexdigest()
    try:
        with open(f"{folder}/recipe") as file:
            if file.read() == mark:
                return folder
    except OSError:
        pass
    print(f"making {folder}", file=sys.stderr, flush=True)
    part = f"{folder}.part"
    for old in (part, folder):
        shutil.rmtree(old, ignore_errors=True)
    os.makedirs(part)
    make(part)
    write(f"{part}/recipe", mark)
    os.rename(part, folder)
    return folder


def unpack(debs, root):
    """Unpacks packages as dpkg would, with a list of them that dpkg takes for its own. None of their scripts runs."""
    for name in ("bin", "sbin", "lib", "lib64"):
        os.makedirs(f"{root}/usr/{name}", exist_ok=True)
        if not os.path.lexists(f"{root}/{name}"):
            os.symlink(f"usr/{name}", f"{root}/{name}")
    os.makedirs(f"{root}/var/lib/dpkg/info", exist_ok=True)
    status = []
    for deb in debs:
        tar = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE)
        listed = said("tar", "-x", "-v", "--keep-directory-symlink", "-C", root, stdin=tar.stdout)
        if tar.wait() != 0:
            sys.exit(f"{deb} cannot be unpacked; remove {CACHE} and start again")
        fields = said("dpkg-deb", "-f", deb)
        status.append(fields.replace("\n", "\nStatus: install ok installed\n", 1).rstrip("\n") + "\n\n")
        of = dict(re.findall(r"^(Package|Architecture|Multi-Arch): (.*)$", fields, re.MULTILINE))
        name = f"{of['Package']}:{of['Architecture']}" if of.get("Multi-Arch") == "same" else of["Package"]
        paths = ["/" + line[2:].rstrip("/") for line in listed.splitlines()]
        write(f"{root}/var/lib/dpkg/info/{name}.list", "".join(f"{path if path != '/' else '/.'}\n" for path in paths))
    write(f"{root}/var/lib/dpkg/status", "".join(status))


def modules(kernel, version, names):
    """The modules' files and those they need, in the order in which they are loaded. What is built in has none."""
    found = []
    for name in names:
        shown = subprocess.run(["modprobe", "-d", kernel, "-S", version, "--ignore-install", "--show-depends", name],
                               capture_output=True, text=True)
        if shown.returncode != 0:
            sys.exit(f"Linux {version} has no module {name}")
        found += [path for path in re.findall(r"insmod (\S+)", shown.stdout) if path not in found]
    return found


def initramfs(root, files, out):
    """Packs `root`, with busybox in it, and modules that its init loads by /modules/order."""
    for name in ("bin", "proc", "sys", "dev", "modules"):
        os.makedirs(f"{root}/{name}", exist_ok=True)
    for path in files:
        shutil.copy(path, f"{root}/modules/")
    write(f"{root}/modules/order", "".join(f"{os.path.basename(path)}\n" for path in files))
    os.chmod(f"{root}/init", 0o755)
    with open(out, "wb") as packed:
        names = run("find", ".", cwd=root, stdout=subprocess.PIPE).stdout
        run("cpio", "-o", "-H", "newc", "--quiet", cwd=root, input=names, stdout=packed)


FIND_ROOT = """#!/bin/busybox sh
busybox=/bin/busybox
$busybox mount -t proc proc /proc; $busybox mount -t sysfs sys /sys; $busybox mount -t devtmpfs dev /dev
while read module; do $busybox insmod /modules/$module; done < /modules/order
while [ ! -b /dev/vda ]; do $busybox sleep 0.1; done
$busybox mkdir -p /root; $busybox mount -t ext4 -o noatime /dev/vda /root
$busybox umount /proc; $busybox umount /sys; $busybox mount -o move /dev /root/dev
exec $busybox switch_root /root /sbin/init
"""

SILENT = ["getty-static.service", "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
          "fstrim.timer", "systemd-tmpfiles-clean.timer", "getty@tty1.service", "serial-getty@ttyS0.service", "serial-getty@ttyAMA0.service"]


def guest(arch, packages, extra_modules):
    """A Debian with systemd and sshd on a disk image, made once: the folder has vmlinuz, initrd, disk and keys."""
    needed = ["?essential", "systemd-sysv", "udev", "kmod", "iproute2", "procps", "openssh-server", *packages]

    def make(folder):
        with Archive(arch) as archive, tempfile.TemporaryDirectory(dir=CACHE) as work:
            kernel, root, first = f"{work}/kernel", f"{work}/root", f"{work}/first"
            version = archive.kernel(arch, kernel)
            shutil.copy(f"{kernel}/boot/vmlinuz-{version}", f"{folder}/vmlinuz")
            run("dpkg-deb", "-x", archive.one("busybox-static"), f"{work}/busybox")
            os.makedirs(f"{first}/bin")
            shutil.copy(f"{work}/busybox/bin/busybox", f"{first}/bin/")
            write(f"{first}/init", FIND_ROOT)
            start = modules(kernel, version, ["virtio_pci", "virtio_blk", "ext4", "virtio_net"])
            initramfs(first, start, f"{folder}/initrd")
            os.makedirs(root)
            unpack(archive.with_dependencies(*needed), root)
            settle(root, folder)
            place = f"{root}/lib/modules/{version}"
            os.makedirs(place)
            for name in glob.glob(f"{kernel}/lib/modules/{version}/modules.*"):
                shutil.copy(name, place)
            for path in modules(kernel, version, [*extra_modules, "virtio_net", "virtio_rng", "autofs4"]):
                there = root + path.removeprefix(kernel)
                os.makedirs(os.path.dirname(there), exist_ok=True)
                shutil.copy(path, there)
            run("depmod", "-b", root, version)
            for name in ("doc", "man", "locale", "info"):
                shutil.rmtree(f"{root}/usr/share/{name}", ignore_errors=True)
            run("mke2fs", "-q", "-t", "ext4", "-d", root, f"{folder}/disk", "1G")
    return kept(f"guest-{arch}", make, arch, needed, extra_modules, FIND_ROOT, SILENT, 1)


def settle(root, folder):
    """What the packages' own scripts would have written, the network and a way in."""
    etc = f"{root}/etc"
    for name in ("passwd", "group"):
        shutil.copy(f"{root}/usr/share/base-passwd/{name}.master", f"{etc}/{name}")
    with open(f"{etc}/passwd", "a") as file:
        file.write("sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n")
    if not os.path.lexists(f"{root}/usr/bin/awk"):
        os.symlink("mawk", f"{root}/usr/bin/awk")
    write(f"{etc}/hostname", "device\n")
    write(f"{etc}/hosts", "127.0.0.1 localhost device\n")
    write(f"{etc}/machine-id", hashlib.md5(b"edgeveil").hexdigest() + "\n")
    write(f"{etc}/fstab", "/dev/vda / ext4 defaults,noatime 0 0\n")
    units = f"{etc}/systemd/system"
    os.makedirs(f"{units}/multi-user.target.wants", exist_ok=True)
    os.makedirs(f"{units}/network-online.target.wants", exist_ok=True)
    for name in SILENT:
        os.symlink("/dev/null", f"{units}/{name}")
    os.symlink("/lib/systemd/system/multi-user.target", f"{units}/default.target")
    for name in ("systemd-networkd", "ssh"):
        os.symlink(f"/lib/systemd/system/{name}.service", f"{units}/multi-user.target.wants/{name}.service")
    os.symlink("/lib/systemd/system/systemd-networkd-wait-online.service",
               f"{units}/network-online.target.wants/systemd-networkd-wait-online.service")
    os.makedirs(f"{etc}/systemd/network", exist_ok=True)
    write(f"{etc}/systemd/network/ethernet.network",
          "[Match]\nType=ether\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\nIPv6AcceptRA=no\n")
    for name in ("host", "login"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", f"{folder}/{name}")
    shutil.copy(f"{folder}/host", f"{etc}/ssh/host_key")
    os.makedirs(f"{root}/root/.ssh", mode=0o700)
    shutil.copy(f"{folder}/login.pub", f"{root}/root/.ssh/authorized_keys")
    write(f"{etc}/ssh/sshd_config", "HostKey /etc/ssh/host_key\nUsePAM no\nPermitRootLogin prohibit-password\nUseDNS no\n"
                                    "Subsystem sftp internal-sftp\nMaxSessions 100\nSetEnv SYSTEMD_BUS_TIMEOUT=1800s\n")


def qemu(arch, newest=False):
    """The command of QEMU. `newest`: of Debian 13 at least; where this machine's is older, that one is fetched."""
    name = {"amd64": "qemu-system-x86_64", "arm64": "qemu-system-aarch64"}[arch]
    package = {"amd64": "qemu-system-x86", "arm64": "qemu-system-arm"}[arch]
    if not newest:
        run("tests/need", f"{name}:{package}")
        return [name]
    if shutil.which(name) and int(re.search(r"version (\d+)", said(name, "--version")).group(1)) >= 10:
        return [name]

    def make(folder):
        with Archive("amd64", "trixie") as archive:
            unpack(archive.with_dependencies(package), folder)
    folder = kept(f"qemu-{arch}", make, package, 1)
    libraries = f"{folder}/usr/lib/x86_64-linux-gnu"
    os.environ["QEMU_MODULE_DIR"] = f"{libraries}/qemu"
    return [f"{folder}/usr/lib64/ld-linux-x86-64.so.2", "--library-path", libraries, f"{folder}/usr/bin/{name}",
            "-L", f"{folder}/usr/share/qemu", "-L", f"{folder}/usr/share/seabios"]


class Console:
    """A machine that speaks on a serial line. What it says is read as it says it."""
    def __init__(self, command, log):
        self.lines, self.news = [], threading.Condition()
        self.log = open(log, "w")
        self.qemu = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for raw in self.qemu.stdout:
            # A line that a power cut has shortened says nothing.
            if raw.endswith(b"\n"):
                line = raw.decode(errors="replace").strip()
                self.log.write(line + "\n")
                self.log.flush()
                with self.news:
                    self.lines.append(line)
                    self.news.notify_all()
        with self.news:
            self.lines.append(None)
            self.news.notify_all()

    def say(self, line):
        self.qemu.stdin.write(line.encode() + b"\n")
        self.qemu.stdin.flush()

    def wait_for(self, words):
        end = time.monotonic() + PATIENCE
        with self.news:
            while not any(line and words in line for line in self.lines):
                if self.lines and self.lines[-1] is None or not self.news.wait(end - time.monotonic()):
                    self.qemu.kill()
                    sys.exit(f"the machine did not say `{words}`; its console is {self.log.name}")

    def end(self, kill):
        if kill:
            self.qemu.kill()
        self.qemu.wait(PATIENCE)
        self.reader.join()
        self.log.close()
        return [line for line in self.lines if line]


class Monitor:
    """QEMU's own line (QMP): changes what a simulated chip measures."""
    def __init__(self, path):
        until("QEMU's monitor", lambda: os.path.exists(path))
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.answers = self.socket.makefile()
        self.answers.readline()
        self.ask("qmp_capabilities")

    def ask(self, command, **arguments):
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:
            answer = json.loads(self.answers.readline())
            if "error" in answer:
                sys.exit(f"QEMU refuses {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]


class Guest:
    """A machine with sshd, used with `with`. Nothing that happens in it stays on its disk image."""
    MACHINES = {"amd64": ["-M", "q35", "-cpu", "max"], "arm64": ["-M", "virt,gic-version=3", "-cpu", "cortex-a72"]}
    # Emulated beside other work, the timer of a PC looks broken to the kernel.
    KERNEL = {"amd64": "console=ttyS0 no_timer_check", "arm64": "console=ttyAMA0"}

    def __init__(self, arch, image, folder, command):
        self.arch, self.image, self.folder, self.command = arch, image, f"{folder}/{arch}", command
        os.makedirs(f"{self.folder}/bin")

    def __enter__(self):
        port, began = free_port(), time.monotonic()
        with open(f"{self.image}/host.pub") as file:
            write(f"{self.folder}/known_hosts", f"device {file.read()}")
        shutil.copy(f"{self.image}/login", f"{self.folder}/login")
        os.chmod(f"{self.folder}/login", 0o600)
        config = write(f"{self.folder}/ssh_config", f"""
Host device
    HostName 127.0.0.1
    Port {port}
    User root
    HostKeyAlias device
    UserKnownHostsFile {self.folder}/known_hosts
    StrictHostKeyChecking yes
    IdentityFile {self.folder}/login
    IdentitiesOnly yes
    ControlMaster auto
    ControlPath {self.folder}/line
    ControlPersist yes
    ServerAliveInterval 60
    ServerAliveCountMax 10
    LogLevel ERROR
""")
        # For programs that call ssh and scp by these names.
        for name in ("ssh", "scp"):
            path = write(f"{self.folder}/bin/{name}", f'#!/bin/sh\nexec {shutil.which(name)} -F "{config}" "$@"\n')
            os.chmod(path, 0o755)
        self.environment = os.environ | {"PATH": f"{self.folder}/bin:{os.environ['PATH']}"}
        self.qemu = subprocess.Popen([
            *self.command, *self.MACHINES[self.arch], "-accel", "tcg,thread=multi", "-smp", "2", "-m", "1024",
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", f"file:{self.folder}/console",
            "-kernel", f"{self.image}/vmlinuz", "-initrd", f"{self.image}/initrd",
            "-append", f"{self.KERNEL[self.arch]} root=/dev/vda rw quiet panic=-1 mitigations=off random.trust_cpu=on",
            "-drive", f"file={self.image}/disk,if=virtio,format=raw,snapshot=on", "-device", "virtio-rng-pci",
            "-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{port}-:22", "-device", "virtio-net-pci,netdev=net,romfile="],
            stdin=subprocess.DEVNULL)
        try:
            until(f"the {self.arch} guest's sshd", self.answers)
        except BaseException:
            self.__exit__()
            raise
        self.booted = time.monotonic() - began
        return self

    def answers(self):
        if self.qemu.poll() is not None:
            sys.exit(f"the {self.arch} guest has ended; its console is {self.folder}/console")
        tried = subprocess.run([f"{self.folder}/bin/ssh", "-o", "ConnectTimeout=60", "device", "true"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # It has to start before it can answer: asking costs the guest its time.
        return tried.returncode == 0 or time.sleep(2)

    def __exit__(self, *_):
        self.qemu.kill()
        self.qemu.wait()
        subprocess.run([f"{self.folder}/bin/ssh", "-O", "exit", "device"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def try_to(self, script):
        """Runs a shell script as root: its exit code, and what it said on both of its outputs."""
        done = subprocess.run([f"{self.folder}/bin/ssh", "device", "sh", "-s"], input=script, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE)
        return done.returncode, done.stdout.strip()

    def sh(self, script):
        code, text = self.try_to(script)
        if code != 0:
            raise RuntimeError(f"in the {self.arch} guest `{script.strip()}` ended with {code}: {text}")
        return text

    def put(self, *files, to):
        run(f"{self.folder}/bin/scp", "-q", "-r", *files, f"device:{to}")
