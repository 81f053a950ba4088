"""Say which accelerator PyTorch sees, and compute something small on it.

This is the rehearsal's own script. It stands in for the lesson's torch_detect_GPU.py where that cannot be fetched.
"""

import platform

import torch


def accelerator():
    """Return the kind of accelerator that this PyTorch can use now, or None."""
    if torch.cuda.is_available():
        return "ROCm" if torch.version.hip else "CUDA"
    if torch.backends.mps.is_available():
        return "MPS"
    return None


def names(kind):
    """Return the names of the devices of that kind."""
    if kind == "MPS":
        return ["Apple GPU"]
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def main():
    print(f"Python {platform.python_version()}, PyTorch {torch.__version__}")
    print(f"PyTorch was built with CUDA: {torch.version.cuda or 'no'}, with ROCm: {torch.version.hip or 'no'}")

    kind = accelerator()
    if kind is None:
        print("PyTorch has no active GPU")
    else:
        for index, name in enumerate(names(kind)):
            print(f"PyTorch has an active GPU ({kind}) {index}: {name}")

    device = {"CUDA": "cuda", "ROCm": "cuda", "MPS": "mps", None: "cpu"}[kind]
    numbers = torch.arange(1, 5, dtype=torch.float32, device=device)
    print(f"The sum of the squares of 1 to 4, computed on {device}: {numbers.square().sum().item():.0f}")


if __name__ == "__main__":
    main()
