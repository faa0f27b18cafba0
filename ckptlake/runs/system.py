"""What the machine does while a run goes on: processor, memory, disk and NVIDIA GPUs."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


class SystemSampler:
    """Reads the machine's load; call `prime` once, then `sample` as often as values are wanted.

    Not safe to share between threads, but it may be primed in one and sampled in another.
    """

    def __init__(self, path: Path) -> None:
        """Make a sampler that reports how full the disk of `path` is."""
        self._path = path
        self._primed = False
        self._process: Any = None
        self._cpu: _CpuTimes | None = None
        self._disk: Any = None
        self._gpus: _Gpus | None = None

    def prime(self) -> None:
        """Set the marks from which `sample` counts, and look for GPUs."""
        import psutil  # type: ignore[import-untyped,unused-ignore]

        self.close()
        self._process = None
        with _refusals():
            self._process = psutil.Process()
            self._process.cpu_percent(interval=None)
        self._cpu = _cpu_times()
        self._disk = _disk_counters()
        self._gpus = _Gpus.find()
        self._primed = True

    def sample(self) -> dict[str, float]:
        """Return the values of this moment by metric name; what cannot be read is left out.

        Names end in their unit. ``system/cpu_percent`` is of the whole machine and
        ``system/process_cpu_percent`` of this process (100 is one core), both since the last call;
        the bytes read and written are those of all disks since `prime`. GPUs are numbered as in
        ``nvidia-smi``, whatever CUDA_VISIBLE_DEVICES says. A sampler that was not primed primes
        itself and then has no processor values yet.
        """
        values: dict[str, float] = {}
        if self._primed:
            self._add_cpu(values)
        else:
            self.prime()
        self._add_memory(values)
        self._add_disk(values)
        if self._gpus is not None:
            values |= self._gpus.sample()
        return values

    def close(self) -> None:
        """Let go of the NVIDIA driver; later samples are without GPUs."""
        if self._gpus is not None:
            self._gpus.close()
            self._gpus = None

    def _add_cpu(self, values: dict[str, float]) -> None:
        current = _cpu_times()
        if current is not None and self._cpu is not None:
            percent = current.percent_since(self._cpu)
            if percent is not None:
                values["system/cpu_percent"] = percent
        self._cpu = current or self._cpu
        with _refusals():
            if self._process is not None:
                values["system/process_cpu_percent"] = float(self._process.cpu_percent(interval=None))

    def _add_memory(self, values: dict[str, float]) -> None:
        import psutil

        with _refusals():
            values["system/memory_percent"] = float(psutil.virtual_memory().percent)
        with _refusals():
            if self._process is not None:
                values["system/process_memory_bytes"] = float(self._process.memory_info().rss)

    def _add_disk(self, values: dict[str, float]) -> None:
        import psutil

        with _refusals():
            values["system/disk_percent"] = float(psutil.disk_usage(str(self._path)).percent)
        current = _disk_counters()
        if current is not None and self._disk is not None:
            read_bytes = current.read_bytes - self._disk.read_bytes
            write_bytes = current.write_bytes - self._disk.write_bytes
            # A disk that was taken away takes its bytes out of the sum.
            if read_bytes >= 0 and write_bytes >= 0:
                values["system/disk_read_bytes"] = float(read_bytes)
                values["system/disk_write_bytes"] = float(write_bytes)


class _CpuTimes:
    """Seconds all processors have spent since the machine started, busy and in total.

    `psutil.cpu_percent` keeps its last reading per thread, and shares it with the program's own
    calls: neither gives the load since our own last sample.
    """

    def __init__(self, times: Any) -> None:
        # Linux counts a guest's time twice, as guest and as user.
        guest_s = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        self._total_s = float(sum(times) - guest_s)
        self._busy_s = self._total_s - float(times.idle + getattr(times, "iowait", 0.0))

    def percent_since(self, earlier: _CpuTimes) -> float | None:
        total_s = self._total_s - earlier._total_s
        if total_s <= 0:
            return None
        # Linux lets iowait run backwards now and then.
        return min(100.0, max(0.0, 100.0 * (self._busy_s - earlier._busy_s) / total_s))


class _Gpus:
    """The NVIDIA GPUs of this machine, read through NVML."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._refusal_told = False
        self._handles: dict[int, Any] = {}
        for index in range(nvml.nvmlDeviceGetCount()):
            with self._refusals(index):
                self._handles[index] = nvml.nvmlDeviceGetHandleByIndex(index)

    @classmethod
    def find(cls) -> _Gpus | None:
        """Open NVML, or return None where the package, the driver or its library is missing."""
        try:
            nvml = importlib.import_module("pynvml")
            failure = nvml.NVMLError
        except ImportError:
            logger.debug("GPUs are not sampled: the package nvidia-ml-py is not installed")
            return None
        except (AttributeError, OSError) as error:
            logger.info("GPUs are not sampled: pynvml cannot be used: %s", error)
            return None
        try:
            nvml.nvmlInit()
        except (failure, OSError) as error:
            logger.info("GPUs are not sampled: the NVIDIA driver cannot be used: %s", error)
            return None
        try:
            return cls(nvml)
        except (failure, OSError) as error:
            logger.info("GPUs are not sampled: the NVIDIA driver lists none: %s", error)
            _shut_down(nvml)
            return None

    def sample(self) -> dict[str, float]:
        nvml = self._nvml
        readings: dict[str, Callable[[Any], float]] = {
            "utilization_percent": lambda gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
            "temperature_celsius": lambda gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
            "power_watts": lambda gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
        }
        values: dict[str, float] = {}
        for index, handle in self._handles.items():
            for name, read in readings.items():
                with self._refusals(index):
                    values[f"system/gpu.{index}.{name}"] = float(read(handle))
            with self._refusals(index):
                memory = nvml.nvmlDeviceGetMemoryInfo(handle)
                values[f"system/gpu.{index}.memory_bytes"] = float(memory.used)
                # GPUs that share the machine's memory report a total of zero.
                if memory.total:
                    values[f"system/gpu.{index}.memory_percent"] = 100.0 * memory.used / memory.total
        return values

    def close(self) -> None:
        _shut_down(self._nvml)

    @contextmanager
    def _refusals(self, index: int) -> Iterator[None]:
        try:
            yield
        except self._nvml.NVMLError as error:
            unsupported = getattr(error, "value", None) == self._nvml.NVML_ERROR_NOT_SUPPORTED
            if not unsupported and not self._refusal_told:
                self._refusal_told = True
                logger.info("some values of GPU %d are not sampled: %s", index, error)


def _shut_down(nvml: Any) -> None:
    try:
        nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        logger.debug("the NVIDIA driver could not be let go: %s", error)


def _cpu_times() -> _CpuTimes | None:
    import psutil

    with _refusals():
        return _CpuTimes(psutil.cpu_times())
    return None


def _disk_counters() -> Any:
    """Return the bytes all disks have moved, or None where the platform does not count them."""
    import psutil

    with _refusals():
        return psutil.disk_io_counters()
    return None


@contextmanager
def _refusals() -> Iterator[None]:
    """Leave out what the system does not tell: a vanished process, a refused or missing counter."""
    import psutil

    try:
        yield
    except (psutil.Error, OSError, RuntimeError) as error:
        logger.debug("a system value is left out: %s", error)
