"""A real PostgreSQL for the tests: its own programs out of a jar (scripts/jars.py), on the loopback, its data in a folder.

PostgreSQL refuses to run as root, so root starts it as the user ``nobody``, in a folder of that user's; pytest's own are closed
to it.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path

import kafka

USER = "nobody"


class Postgres:
    """A server with a database ``sparkdl``. ``stop`` ends it at once, ``start`` goes on with the same data and port."""

    def __init__(self, jars: Path) -> None:
        self.folder, self.password = Path(tempfile.mkdtemp(prefix="sparkdl-postgres-")), secrets.token_hex(8)
        (self.port,) = kafka.free_ports(1)
        self._unpack(jars)
        (self.folder / "password").write_text(self.password)
        self._give()
        told = ["-D", str(self.folder / "data"), "-U", "sparkdl", "-A", "scram-sha-256", "--no-sync", "-E", "UTF8"]
        self._run("initdb", *told, f"--pwfile={self.folder / 'password'}")

    def _unpack(self, jars: Path) -> None:
        (jar,) = jars.glob("embedded-postgres-binaries-*.jar")
        with zipfile.ZipFile(jar) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(".txz"))
            with archive.open(name) as packed, tarfile.open(fileobj=packed, mode="r:xz") as files:
                files.extractall(self.folder, filter="tar")

    def _give(self) -> None:
        if os.getuid() != 0:
            return
        user = pwd.getpwnam(USER)
        for path in (self.folder, *self.folder.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)

    def _run(self, program: str, *arguments: str) -> None:
        user = pwd.getpwnam(USER) if os.getuid() == 0 else None
        more = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
        with (self.folder / "log.txt").open("a") as log:
            done = subprocess.run(
                [self.folder / "bin" / program, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, check=False, **more
            )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed:\n{(self.folder / 'log.txt').read_text()[-2000:]}")

    def start(self) -> Postgres:
        """Returns when it serves."""
        settings = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._run(
            "pg_ctl",
            "-D",
            str(self.folder / "data"),
            "-w",
            "-o",
            settings,
            "-l",
            str(self.folder / "data/server.log"),
            "start",
        )
        return self

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-m", "immediate", "stop")

    def close(self) -> None:
        """End it, and remove its folder."""
        if (self.folder / "data/postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self.folder)

    @property
    def url(self) -> str:
        return f"postgresql://sparkdl:{self.password}@127.0.0.1:{self.port}/postgres"
