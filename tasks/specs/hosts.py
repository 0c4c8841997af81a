"""The machines of a training over several hosts."""

import ipaddress
from pathlib import PurePosixPath
from typing import Any

from pydantic import Field, field_validator, model_validator

from trainyard.tasks.specs.spec import Spec

_UNSAFE = set(" \t\r\n\0'\"\\$`;&|<>(){}*?!#,")


class Host(Spec):
    """One machine."""

    address: str = Field(min_length=1, max_length=253, title="Address", examples=["10.0.0.1", "gpu-1.example.org"])
    """Host name, address, or alias of the ssh configuration."""

    slots: int | None = Field(default=None, ge=1, le=1024, title="Slots")
    """Most training processes that it takes; by default as many as are asked for."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, data: Any) -> Any:
        """``10.0.0.1`` or ``10.0.0.1:2``; an IPv6 address with slots is ``[fd00::1]:2``."""
        if not isinstance(data, str):
            return data
        if data.startswith("["):
            address, _, rest = data[1:].partition("]")
            return {"address": address, **({"slots": rest.removeprefix(":")} if rest else {})}
        if data.count(":") == 1:
            address, _, slots = data.partition(":")
            return {"address": address, "slots": slots}
        return {"address": data}

    @field_validator("address")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if value.startswith("-") or "@" in value or _UNSAFE.intersection(value):
            raise ValueError(f"{value!r} is not a host name or address; a user name goes into the field 'user'")
        return value


class Hosts(Spec):
    """Several machines, reached over ssh, as a compute target.

    Each needs the same Python environment at the same path (torch, Horovod, mpi4py, Open MPI) and a directory of its
    own to write to; Trainyard's code, the source and the data are sent to them. Nothing is shared between them.
    """

    hosts: tuple[Host, ...] = Field(
        min_length=1, max_length=4096, title="Hosts", examples=[["10.0.0.1:2", "10.0.0.2:2"]]
    )
    """The machines, in the order in which they take ranks; the first ``node_count`` of them are used."""

    user: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@+-]*$", title="User")
    """User name there; by default as the ssh configuration says, else the name here."""

    port: int | None = Field(default=None, ge=1, le=65535, title="Port")
    """Port of their ssh servers; by default as the ssh configuration says, else 22."""

    identity_file: str | None = Field(default=None, min_length=1, title="Identity file")
    """Path, on the machine that runs the pipeline, of the private key to log in with; by default ssh's own choice."""

    ssh_config: str | None = Field(default=None, min_length=1, title="ssh configuration")
    """Path, on the machine that runs the pipeline, of an ssh configuration file in place of the user's own."""

    ssh_options: dict[str, str] = Field(default_factory=dict, title="ssh options", examples=[{"ProxyJump": "gateway"}])
    """More options of ssh_config(5), by name."""

    check_host_keys: bool = Field(default=True, title="Check host keys")
    """Refuse a machine whose ssh host key is not known. False trusts whoever answers: only on a network that is
    yours."""

    network_interface: str | None = Field(default=None, min_length=1, title="Network", examples=["eth1", "10.0.0.0/24"])
    """Names of interfaces, or networks (CIDR), for the traffic between ranks, separated by commas; by default the
    network at which ssh reaches the machines."""

    python: str | None = Field(default=None, title="Python", examples=["/opt/venv/bin/python"])
    """The interpreter on the machines; by default the same path as here."""

    home: str | None = Field(default=None, title="Directory", examples=["/var/tmp/trainyard"])
    """Directory on each machine's own disk for source, data and runs; by default ``node`` in the path of this
    machine's ``TRAINYARD_HOME``."""

    lost_after_s: float = Field(default=30.0, ge=10, le=3600, title="Lost after (seconds)")
    """A machine that has not been heard of for so long counts as lost, and so does the pipeline's for the others: the
    training is ended on all of them."""

    @field_validator("hosts")
    @classmethod
    def _each_once(cls, value: tuple[Host, ...]) -> tuple[Host, ...]:
        addresses = [host.address for host in value]
        twice = sorted({address for address in addresses if addresses.count(address) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)}: named more than once; give a host more slots instead")
        return value

    @field_validator("ssh_options")
    @classmethod
    def _are_options(cls, value: dict[str, str]) -> dict[str, str]:
        for name, setting in value.items():
            if not name.isalnum() or any(character in setting for character in "\n\r\0"):
                raise ValueError(f"{name!r}: names as in ssh_config(5), and values of one line")
            if name.lower() == "stricthostkeychecking":
                raise ValueError(f"{name!r} is decided by check_host_keys")
        return value

    @field_validator("python", "home")
    @classmethod
    def _is_absolute(cls, value: str | None) -> str | None:
        if value is not None and (not PurePosixPath(value).is_absolute() or "\0" in value):
            raise ValueError(f"{value!r} must be an absolute path: it is the same on every machine")
        return value

    @field_validator("network_interface")
    @classmethod
    def _names_or_networks(cls, value: str | None) -> str | None:
        words = [word.strip() for word in value.split(",")] if value is not None else []
        for word in words:
            if "/" in word:
                ipaddress.ip_network(word, strict=False)
            elif not word or word.startswith("-") or _UNSAFE.intersection(word):
                raise ValueError(f"{word!r} is neither the name of an interface nor a network such as 10.0.0.0/24")
        return ",".join(words) if words else None

    @classmethod
    def load(cls, name: str) -> "Hosts":
        """Hosts saved as a Prefect block.

        Args:
            name: The block's name, as in the Prefect UI.

        Raises:
            InvalidInputError: No block of that name is known to the Prefect server.
            PrefectUnavailableError: The Prefect server does not answer.
        """
        from trainyard.tasks.blocks import load_hosts

        return load_hosts(name)

    def first(self, node_count: int) -> tuple[Host, ...]:
        """The machines that a training on so many nodes takes."""
        return self.hosts[:node_count]


def hosts_block(compute_target: str) -> str | None:
    """The block's name of a target such as ``hosts/lab``; None for another kind of target."""
    kind, slash, name = compute_target.partition("/")
    return name if slash and kind == "hosts" and name else None
