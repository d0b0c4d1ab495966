"""What an accelerator can do at most by its data sheet, and the floor of a computation on it."""

from typing import NamedTuple

TERA = 1e12


class Chip(NamedTuple):
    """Dense rates of one chip by its maker's data sheet; none was measured here.

    Attributes:
        name: for tables.
        bandwidth: bytes a second between the chip and its memory.
        bfloat16: floating-point operations a second of products of bfloat16.
        tensorfloat32: of what the compute type tensorfloat32 takes, see docs/accelerators.md.
        float32: of exact products of float32.
    """

    name: str
    bandwidth: float
    bfloat16: float
    tensorfloat32: float
    float32: float


def _gpu(name: str, *tera: float) -> Chip:
    return Chip(name, *(TERA * rate for rate in tera))


def _tpu(name: str, bandwidth: float, bfloat16: float) -> Chip:
    # A matrix unit multiplies bfloat16 alone: float32 is put together from three or six products.
    return Chip(name, *(TERA * r for r in (bandwidth, bfloat16, bfloat16 / 3, bfloat16 / 6)))


CHIPS = {
    "H100 PCIe": _gpu("H100 PCIe", 2.0, 756, 378, 51),
    "H100 NVL": _gpu("H100 NVL", 3.9, 835, 418, 60),
    "H100": _gpu("H100", 3.35, 989, 495, 67),
    "H200": _gpu("H200", 4.8, 989, 495, 67),
    "GH200": _gpu("GH200", 4.0, 989, 495, 67),
    "B200": _gpu("B200", 8.0, 2250, 1125, 75),
    "A100-SXM4-40GB": _gpu("A100 40GB", 1.555, 312, 156, 19.5),
    "A100-PCIE-40GB": _gpu("A100 40GB", 1.555, 312, 156, 19.5),
    "A100": _gpu("A100 80GB", 2.0, 312, 156, 19.5),
    "L40S": _gpu("L40S", 0.864, 362, 183, 91.6),
    "L4": _gpu("L4", 0.3, 121, 60, 30.3),
    "A10": _gpu("A10", 0.6, 125, 62.5, 31.2),
    "TPU v4": _tpu("TPU v4", 1.228, 275),
    "TPU v5 lite": _tpu("TPU v5e", 0.819, 197),
    "TPU v5e": _tpu("TPU v5e", 0.819, 197),
    "TPU v5": _tpu("TPU v5p", 2.765, 459),
    "TPU v6": _tpu("TPU v6e", 1.64, 918),
}
"""By a part of `jax.Device.device_kind`."""


def chip_of(device_kind: str) -> Chip | None:
    """The chip of a device by the longest name that its kind contains; None for an unknown one."""
    found = [name for name in CHIPS if name.lower() in device_kind.lower()]
    return CHIPS[max(found, key=len)] if found else None


class Work(NamedTuple):
    """The least that a computation does: every input read once, every result written once."""

    num_bytes: float
    flops: float

    def floor(self, chip: Chip, dtype: str) -> float:
        """Seconds below which the chip cannot be done: for its bytes, and for its products."""
        return max(self.num_bytes / chip.bandwidth, self.flops / getattr(chip, dtype))
