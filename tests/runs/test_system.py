"""What the machine does while a run goes on, compared with what psutil says at the same time."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest

from ckptlake.runs.system import SystemSampler

LOGGER = "ckptlake.runs.system"
PROCESS_VALUES = {"system/process_cpu_percent", "system/process_memory_bytes"}


@pytest.fixture(autouse=True)
def without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """None makes an import fail, as on a machine without the package."""
    monkeypatch.setitem(sys.modules, "pynvml", None)


@pytest.fixture
def sampler(tmp_path: Path) -> Iterator[SystemSampler]:
    sampler = SystemSampler(tmp_path)
    sampler.prime()
    yield sampler
    sampler.close()


def burn(duration_s: float) -> None:
    """Keep one core busy for this much processor time."""
    started = time.process_time()
    while time.process_time() - started < duration_s:
        sum(range(1000))


class TestProcessor:
    def test_of_the_machine_agrees_with_psutil(self, sampler: SystemSampler) -> None:
        before = psutil.cpu_times()
        sampler.sample()
        burn(0.5)
        value = sampler.sample()["system/cpu_percent"]
        after = psutil.cpu_times()

        def busy_s(times: Any) -> float:
            guest_s = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
            return float(sum(times) - guest_s - times.idle - getattr(times, "iowait", 0.0))

        idle_s = after.idle + getattr(after, "iowait", 0.0) - before.idle - getattr(before, "iowait", 0.0)
        used_s = busy_s(after) - busy_s(before)
        assert value == pytest.approx(100 * used_s / (used_s + idle_s), abs=10)
        assert 0 < value <= 100

    def test_is_counted_since_the_last_sample_of_any_thread(self, sampler: SystemSampler) -> None:
        burn(0.4)
        samples: list[dict[str, float]] = []
        thread = threading.Thread(target=lambda: samples.append(sampler.sample()))
        thread.start()
        thread.join()
        assert samples[0]["system/cpu_percent"] > 0
        assert samples[0]["system/process_cpu_percent"] > 0

    def test_calls_of_the_program_to_psutil_do_not_reset_it(self, sampler: SystemSampler) -> None:
        burn(0.4)
        psutil.cpu_percent()
        assert sampler.sample()["system/cpu_percent"] > 0

    def test_of_the_process_tells_busy_from_asleep(self, sampler: SystemSampler) -> None:
        started, used_s = time.perf_counter(), time.process_time()
        burn(0.4)
        busy = sampler.sample()["system/process_cpu_percent"]
        share = 100 * (time.process_time() - used_s) / (time.perf_counter() - started)
        time.sleep(0.4)
        asleep = sampler.sample()["system/process_cpu_percent"]
        assert busy == pytest.approx(share, rel=0.3)
        assert asleep < busy / 3

    def test_each_sample_counts_from_the_one_before_and_stays_between_0_and_100(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        times = [(100, 100), (105, 99), (105, 109), (108, 110), (107, 120)]
        real = psutil.cpu_times()
        zero = real._replace(**dict.fromkeys(real._fields, 0.0))

        def next_times() -> Any:
            idle, user = times.pop(0)
            return zero._replace(idle=float(idle), user=float(user))

        monkeypatch.setattr(psutil, "cpu_times", next_times)
        sampler = SystemSampler(tmp_path)
        sampler.prime()
        # Of the fourth, idle time ran backwards, as it does on Linux now and then.
        assert [sampler.sample()["system/cpu_percent"] for _ in range(4)] == [0, 100, 25, 100]


class TestMemory:
    def test_of_the_machine_agrees_with_psutil(self, sampler: SystemSampler) -> None:
        value = sampler.sample()["system/memory_percent"]
        assert value == pytest.approx(psutil.virtual_memory().percent, abs=5)

    def test_of_the_process_grows_with_what_it_holds(self, sampler: SystemSampler) -> None:
        before = sampler.sample()["system/process_memory_bytes"]
        assert before == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)
        held = bytearray(os.urandom(1000)) * 100_000
        after = sampler.sample()["system/process_memory_bytes"]
        assert after - before == pytest.approx(len(held), rel=0.2)


class TestDisk:
    def test_fill_is_that_of_the_given_path(self, sampler: SystemSampler, tmp_path: Path) -> None:
        value = sampler.sample()["system/disk_percent"]
        assert value == pytest.approx(psutil.disk_usage(str(tmp_path)).percent, abs=2)

    def test_a_path_that_is_gone_leaves_only_that_value_out(self, tmp_path: Path) -> None:
        directory = tmp_path / "lake"
        directory.mkdir()
        sampler = SystemSampler(directory)
        sampler.prime()
        burn(0.1)
        with_path = sampler.sample()
        directory.rmdir()
        burn(0.1)
        assert with_path.keys() - sampler.sample().keys() == {"system/disk_percent"}

    def test_bytes_are_counted_from_prime(self, tmp_path: Path) -> None:
        if psutil.disk_io_counters() is None:
            pytest.skip("this platform does not count the bytes of its disks")
        sampler = SystemSampler(tmp_path)
        earliest = psutil.disk_io_counters()
        sampler.prime()
        latest = psutil.disk_io_counters()
        with (tmp_path / "data").open("wb") as file:
            file.write(os.urandom(8_000_000))
            os.fsync(file.fileno())
        sampler.sample()
        before = psutil.disk_io_counters()
        values = sampler.sample()
        after = psutil.disk_io_counters()
        for kind in ("read_bytes", "write_bytes"):
            low = getattr(before, kind) - getattr(latest, kind)
            high = getattr(after, kind) - getattr(earliest, kind)
            assert low <= values[f"system/disk_{kind}"] <= high

    def test_counted_bytes_are_differences(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        counters = [(100, 50), (130, 90), (20, 95), (150, 95)]
        monkeypatch.setattr(
            psutil,
            "disk_io_counters",
            lambda: SimpleNamespace(**dict(zip(("read_bytes", "write_bytes"), counters.pop(0), strict=True))),
        )
        sampler = SystemSampler(tmp_path)
        sampler.prime()
        seen = [
            {name: value for name, value in sampler.sample().items() if name.endswith(("read_bytes", "write_bytes"))}
            for _ in range(3)
        ]
        assert seen == [
            {"system/disk_read_bytes": 30, "system/disk_write_bytes": 40},
            {},  # a disk was taken away
            {"system/disk_read_bytes": 50, "system/disk_write_bytes": 45},
        ]


def refuse(error: BaseException) -> Callable[..., Any]:
    def call(*_arguments: object, **_options: object) -> Any:
        raise error

    return call


class TestRefusals:
    @pytest.mark.parametrize(
        ("counter", "missing"),
        [
            ("cpu_times", {"system/cpu_percent"}),
            ("virtual_memory", {"system/memory_percent"}),
            ("disk_usage", {"system/disk_percent"}),
            ("disk_io_counters", {"system/disk_read_bytes", "system/disk_write_bytes"}),
            ("Process", PROCESS_VALUES),
        ],
    )
    @pytest.mark.parametrize(
        "error",
        [psutil.AccessDenied(1), PermissionError("refused"), NotImplementedError("no /proc/diskstats")],
        ids=lambda error: type(error).__name__,
    )
    def test_a_refused_counter_leaves_out_its_own_values_only(
        self,
        counter: str,
        missing: set[str],
        error: Exception,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        sampler: SystemSampler,
    ) -> None:
        burn(0.05)
        complete = sampler.sample()
        monkeypatch.setattr(psutil, counter, refuse(error))
        refused = SystemSampler(tmp_path)
        refused.prime()
        burn(0.05)
        assert refused.sample().keys() == complete.keys() - missing

    def test_a_counter_refused_once_comes_back(self, sampler: SystemSampler, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(psutil, "cpu_times", refuse(OSError("busy")))
            assert "system/cpu_percent" not in sampler.sample()
        burn(0.2)
        assert sampler.sample()["system/cpu_percent"] > 0

    def test_a_platform_without_disk_counters(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(psutil, "disk_io_counters", lambda: None)
        sampler = SystemSampler(tmp_path)
        sampler.prime()
        values = sampler.sample()
        assert "system/disk_read_bytes" not in values
        assert "system/disk_percent" in values

    def test_a_vanished_process_leaves_out_its_values(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
        process = psutil.Process(child.pid)
        monkeypatch.setattr(psutil, "Process", lambda: process)
        sampler = SystemSampler(tmp_path)
        sampler.prime()
        alive = sampler.sample()
        child.kill()
        child.wait()
        gone = sampler.sample()
        assert alive.keys() >= PROCESS_VALUES
        assert not gone.keys() & PROCESS_VALUES
        assert "system/memory_percent" in gone


class TestUse:
    def test_psutil_is_not_loaded_before_it_is_needed(self) -> None:
        code = (
            "import sys; from pathlib import Path; from ckptlake.runs.system import SystemSampler;"
            "sampler = SystemSampler(Path('.')); before = 'psutil' in sys.modules;"
            "sampler.prime(); print(before, 'psutil' in sys.modules)"
        )
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        printed = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
        ).stdout
        assert printed.split() == ["False", "True"]

    def test_an_unprimed_sampler_primes_itself_and_has_no_processor_values_yet(self, tmp_path: Path) -> None:
        sampler = SystemSampler(tmp_path)
        first = sampler.sample()
        burn(0.05)
        second = sampler.sample()
        assert second.keys() - first.keys() == {"system/cpu_percent", "system/process_cpu_percent"}
        assert "system/memory_percent" in first

    def test_values_are_floats(self, sampler: SystemSampler) -> None:
        values = sampler.sample()
        assert len(values) >= 5
        assert {type(value) for value in values.values()} == {float}


class NvmlError(Exception):
    """What NVML raises: a number and a text, as in the real package."""

    def __init__(self, value: int, text: str) -> None:
        super().__init__(text)
        self.value = value


NOT_SUPPORTED = NvmlError(3, "Not Supported")
LOST = NvmlError(15, "GPU is lost")


class FakeNvml(ModuleType):
    """A machine with two GPUs; `refused` maps a function (and GPU) to what it raises."""

    NVMLError = NvmlError
    NVML_ERROR_NOT_SUPPORTED = 3
    NVML_TEMPERATURE_GPU = 0

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.open_count = 0
        self.refused: dict[str | tuple[str, int], Exception] = {}

    def _answer(self, function: str, gpu: int | None, value: Any) -> Any:
        for key in (function, (function, gpu)):
            if key in self.refused:
                raise self.refused[key]
        assert self.open_count > 0, "NVML was asked before nvmlInit or after nvmlShutdown"
        return value

    def nvmlInit(self) -> None:
        if "nvmlInit" in self.refused:
            raise self.refused["nvmlInit"]
        self.open_count += 1

    def nvmlShutdown(self) -> None:
        self._answer("nvmlShutdown", None, None)
        self.open_count -= 1

    def nvmlDeviceGetCount(self) -> Any:
        return self._answer("nvmlDeviceGetCount", None, 2)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        return self._answer("nvmlDeviceGetHandleByIndex", index, index)

    def nvmlDeviceGetUtilizationRates(self, gpu: int) -> Any:
        return self._answer("nvmlDeviceGetUtilizationRates", gpu, SimpleNamespace(gpu=40 + gpu, memory=7))

    def nvmlDeviceGetMemoryInfo(self, gpu: int) -> Any:
        memory = SimpleNamespace(total=80 * 2**30, used=(20 + 20 * gpu) * 2**30, free=0)
        return self._answer("nvmlDeviceGetMemoryInfo", gpu, memory)

    def nvmlDeviceGetTemperature(self, gpu: int, sensor: int) -> Any:
        assert sensor == self.NVML_TEMPERATURE_GPU
        return self._answer("nvmlDeviceGetTemperature", gpu, 60 + gpu)

    def nvmlDeviceGetPowerUsage(self, gpu: int) -> Any:
        return self._answer("nvmlDeviceGetPowerUsage", gpu, 250_500 + 1000 * gpu)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    module = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module


def gpu_values(sampler: SystemSampler) -> dict[str, float]:
    return {name: value for name, value in sampler.sample().items() if name.startswith("system/gpu.")}


class TestGpus:
    def test_all_values_of_all_gpus(self, nvml: FakeNvml, sampler: SystemSampler) -> None:
        assert gpu_values(sampler) == {
            "system/gpu.0.utilization_percent": 40.0,
            "system/gpu.0.memory_bytes": 20.0 * 2**30,
            "system/gpu.0.memory_percent": 25.0,
            "system/gpu.0.temperature_celsius": 60.0,
            "system/gpu.0.power_watts": 250.5,
            "system/gpu.1.utilization_percent": 41.0,
            "system/gpu.1.memory_bytes": 40.0 * 2**30,
            "system/gpu.1.memory_percent": 50.0,
            "system/gpu.1.temperature_celsius": 61.0,
            "system/gpu.1.power_watts": 251.5,
        }
        assert {type(value) for value in gpu_values(sampler).values()} == {float}

    @pytest.mark.parametrize(
        ("function", "missing"),
        [
            ("nvmlDeviceGetUtilizationRates", {"utilization_percent"}),
            ("nvmlDeviceGetMemoryInfo", {"memory_bytes", "memory_percent"}),
            ("nvmlDeviceGetTemperature", {"temperature_celsius"}),
            ("nvmlDeviceGetPowerUsage", {"power_watts"}),
        ],
    )
    def test_an_unsupported_value_is_left_out_in_silence(
        self,
        function: str,
        missing: set[str],
        nvml: FakeNvml,
        sampler: SystemSampler,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        complete = gpu_values(sampler).keys()
        nvml.refused[function, 0] = NOT_SUPPORTED
        with caplog.at_level(logging.INFO, LOGGER):
            kept = gpu_values(sampler).keys()
        assert complete - kept == {f"system/gpu.0.{name}" for name in missing}
        assert not caplog.records

    def test_memory_shared_with_the_machine_has_no_percent(
        self, nvml: FakeNvml, sampler: SystemSampler, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(nvml, "nvmlDeviceGetMemoryInfo", lambda _gpu: SimpleNamespace(total=0, used=5))
        values = gpu_values(sampler)
        assert values["system/gpu.0.memory_bytes"] == 5
        assert "system/gpu.0.memory_percent" not in values

    def test_a_gpu_lost_on_the_way_is_told_once(
        self, nvml: FakeNvml, sampler: SystemSampler, caplog: pytest.LogCaptureFixture
    ) -> None:
        for name in ("UtilizationRates", "MemoryInfo", "Temperature", "PowerUsage"):
            nvml.refused[f"nvmlDeviceGet{name}", 1] = LOST
        with caplog.at_level(logging.INFO, LOGGER):
            values = [gpu_values(sampler) for _ in range(3)]
        assert all(names and not any(".1." in name for name in names) for names in values)
        assert [(record.levelname, "GPU is lost" in record.message) for record in caplog.records] == [("INFO", True)]

    def test_a_gpu_lost_before_the_start_leaves_the_other(self, nvml: FakeNvml, tmp_path: Path) -> None:
        nvml.refused["nvmlDeviceGetHandleByIndex", 0] = LOST
        sampler = SystemSampler(tmp_path)
        sampler.prime()
        assert len(gpu_values(sampler)) == 5
        assert all(name.startswith("system/gpu.1.") for name in gpu_values(sampler))

    @pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetCount"])
    @pytest.mark.parametrize("error", [NvmlError(9, "Driver Not Loaded"), OSError("libnvidia-ml.so: bad ELF")])
    def test_a_broken_driver_is_told_once(
        self,
        function: str,
        error: Exception,
        nvml: FakeNvml,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        nvml.refused[function] = error
        sampler = SystemSampler(tmp_path)
        with caplog.at_level(logging.INFO, LOGGER):
            sampler.prime()
            values = [sampler.sample() for _ in range(3)]
        sampler.close()
        assert [(record.levelname, str(error) in record.message) for record in caplog.records] == [("INFO", True)]
        assert all("system/memory_percent" in sample for sample in values)
        assert not any(name.startswith("system/gpu") for sample in values for name in sample)
        assert nvml.open_count == 0

    def test_another_package_of_that_name_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", ModuleType("pynvml"))
        sampler = SystemSampler(tmp_path)
        with caplog.at_level(logging.INFO, LOGGER):
            sampler.prime()
        assert [record.levelname for record in caplog.records] == ["INFO"]
        assert gpu_values(sampler) == {}

    def test_a_missing_package_is_no_news(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        sampler = SystemSampler(tmp_path)
        with caplog.at_level(logging.INFO, LOGGER):
            sampler.prime()
        assert not caplog.records
        assert gpu_values(sampler) == {}

    def test_close_shuts_nvml_down_once(self, nvml: FakeNvml, tmp_path: Path) -> None:
        sampler = SystemSampler(tmp_path)
        sampler.close()
        sampler.prime()
        sampler.prime()
        assert nvml.open_count == 1
        sampler.close()
        sampler.close()
        assert nvml.open_count == 0
        assert gpu_values(sampler) == {}
        assert "system/memory_percent" in sampler.sample()

    def test_a_driver_gone_at_the_end_does_not_matter(self, nvml: FakeNvml, sampler: SystemSampler) -> None:
        nvml.refused["nvmlShutdown"] = NvmlError(1, "Uninitialized")
        assert gpu_values(sampler)
        sampler.close()
        assert gpu_values(sampler) == {}
