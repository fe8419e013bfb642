"""The VM sizes that there are in the rehearsal's region: cores, memory, GPUs, quota, and what an hour costs.

    found = sizes.find("Standard_NC24ads_A100_v4")      # None where the region has no such size

Workspaces answer them as sizes and quota, computes and deployments check against them, the price list is made of them.
Cores, memory and GPUs are those of the real sizes. Prices and limits are examples: nobody's quota, no day's prices.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Dedicated cores of a region, of all families together, and its low-priority cores, which no family has of its own.
TOTAL_DEDICATED, TOTAL_LOW_PRIORITY = 200, 100


@dataclass(frozen=True)
class Family:
    """Sizes that share a quota."""

    name: str
    """As sizes and usages name it: `standardESv3Family`."""
    label: str
    """As people and error messages name it: `Standard ESv3`."""
    limit: int
    """Dedicated cores that the subscription may use at once."""
    product: str
    """The price list's name for it."""


@dataclass(frozen=True)
class Size:
    """One VM size."""

    name: str
    family: Family
    cores: int
    memory: float
    """GiB."""
    disk: int
    """GiB of temporary disk."""
    hourly: float
    """US dollars an hour, Linux, dedicated."""
    low_priority: float
    """The same for a low-priority node; 0: there are none of this size."""
    gpus: int = 0

    @property
    def meter(self) -> str:
        """The price list's name for it: `E4s v3`."""
        return self.name.removeprefix("Standard_").replace("_", " ")


_ES = Family("standardESv3Family", "Standard ESv3", 64, "Virtual Machines ESv3 Series")
_DS2 = Family("standardDSv2Family", "Standard DSv2", 32, "Virtual Machines DSv2 Series")
_DS3 = Family("standardDSv3Family", "Standard DSv3", 32, "Virtual Machines DSv3 Series")
_FS = Family("standardFSv2Family", "Standard FSv2", 32, "Virtual Machines FSv2 Series")
_A100 = Family("standardNCADSA100v4Family", "Standard NCADSA100v4", 48, "Virtual Machines NCads A100 v4 Series")
_H100 = Family("standardNCadsH100v5Family", "Standard NCadsH100v5", 0, "Virtual Machines NCads H100 v5 Series")
_V100 = Family("standardNCSv3Family", "Standard NCSv3", 24, "Virtual Machines NCSv3 Series")
_T4 = Family("standardNCASv3T4Family", "Standard NCASv3_T4", 16, "Virtual Machines NCasT4_v3 Series")

SIZES = (
    Size("Standard_DS2_v2", _DS2, 2, 7, 14, 0.114, 0.0228),
    Size("Standard_DS3_v2", _DS2, 4, 14, 28, 0.229, 0.0458),
    Size("Standard_DS4_v2", _DS2, 8, 28, 56, 0.458, 0.0916),
    Size("Standard_D2s_v3", _DS3, 2, 8, 16, 0.096, 0.0192),
    Size("Standard_D4s_v3", _DS3, 4, 16, 32, 0.192, 0.0384),
    Size("Standard_E2s_v3", _ES, 2, 16, 32, 0.133, 0.0266),
    Size("Standard_E4s_v3", _ES, 4, 32, 64, 0.266, 0.0532),
    Size("Standard_E8s_v3", _ES, 8, 64, 128, 0.532, 0.1064),
    Size("Standard_E16s_v3", _ES, 16, 128, 256, 1.064, 0.2128),
    Size("Standard_F2s_v2", _FS, 2, 4, 16, 0.0846, 0.0169),
    Size("Standard_F4s_v2", _FS, 4, 8, 32, 0.169, 0.0338),
    Size("Standard_F8s_v2", _FS, 8, 16, 64, 0.338, 0.0676),
    Size("Standard_NC4as_T4_v3", _T4, 4, 28, 176, 0.526, 0.1052, gpus=1),
    Size("Standard_NC6s_v3", _V100, 6, 112, 736, 3.06, 0.612, gpus=1),
    Size("Standard_NC12s_v3", _V100, 12, 224, 1474, 6.12, 1.224, gpus=2),
    Size("Standard_NC24s_v3", _V100, 24, 448, 2948, 12.24, 2.448, gpus=4),
    Size("Standard_NC24ads_A100_v4", _A100, 24, 220, 64, 3.673, 0.7346, gpus=1),
    Size("Standard_NC48ads_A100_v4", _A100, 48, 440, 128, 7.346, 1.4692, gpus=2),
    Size("Standard_NC96ads_A100_v4", _A100, 96, 880, 256, 14.692, 2.9384, gpus=4),
    # as for most subscriptions: there is the size, but no quota, and low priority does not help
    Size("Standard_NC40ads_H100_v5", _H100, 40, 320, 128, 6.98, 0, gpus=1),
)
FAMILIES = tuple(dict.fromkeys(size.family for size in SIZES))


def find(name: str) -> Size | None:
    """The size of that name, in whatever case it is written."""
    return next((size for size in SIZES if size.name.lower() == name.lower()), None)
