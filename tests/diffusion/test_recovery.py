"""Which errors are no face's fault."""

import pytest
import torch

from pipeline.diffusion.recovery import device_lost, isolate_failures, out_of_memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        torch.AcceleratorError("CUDA error: out of memory"),
    ],
)
def test_exhausted_memory_is_recognised_whatever_library_reports_it(error):
    assert out_of_memory(error) and not device_lost(error)


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: device-side assert triggered"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: unspecified launch failure"),
        RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    ],
)
def test_a_lost_device_is_recognised_and_raised_for_the_whole_batch(error):
    assert device_lost(error) and not out_of_memory(error)

    def work(batch):
        raise error

    with pytest.raises(type(error)):
        list(isolate_failures([1, 2], work))


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("out of memory lane")])
def test_other_errors_are_of_the_face_at_fault(error):
    assert not device_lost(error) and not out_of_memory(error)

    def work(batch):
        if 2 in batch:
            raise error
        return [item * 10 for item in batch]

    assert list(isolate_failures([1, 2, 3], work)) == [(1, 10), (2, error), (3, 30)]
