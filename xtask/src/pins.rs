//! Every address, digest and number that the exercise pins, and nothing else.

/// The workspace that the texts of the lesson are written for. Workflows publish its gpu environment, whatever `--env` says.
pub const WORKSPACE: &str = "cuda-exercise";

/// The lesson's script, at the commit that the lesson names.
pub const SCRIPT_URL: &str = "https://github.com/matthewfeickert/nvidia-gpu-ml-library-test/raw/36c725360b1b1db648d6955c27bd3885b29a3273/torch_detect_GPU.py";
/// The sha256 of the script, in hex.
pub const SCRIPT_SHA256: &str = "d4d98e07a5e58f0fa356fbc4f3f27317b0e1eec1b018d785946498cf91c6589f";
/// The size of the script in bytes.
pub const SCRIPT_SIZE: u64 = 863;
/// What the lesson calls the script, below `app/`.
pub const SCRIPT_NAME: &str = "torch_detect_GPU.py";

/// The base image of our recipes. A version is named, for an older pixi cannot read the lock and a newer one may differ.
pub const BASE: &str = "ghcr.io/prefix-dev/pixi:0.77.0-noble";
/// What the lesson's recipes name instead, and every tag of the same image.
pub const BASE_REPOSITORY: &str = "ghcr.io/prefix-dev/pixi";
/// What the distribution of the base is called in tags: the lesson's, and the rehearsal's.
pub const BASE_DISTRIBUTIONS: [&str; 2] = ["noble", "trixie"];
/// What the rehearsal's base with pixi is called where its channel is served.
pub const REHEARSAL_IMAGE: &str = "rehearsal/pixi:trixie";
/// What must answer so that packages and the base image can be had: conda-forge and the registry of the base.
pub const REACHABLE: [&str; 2] =
    ["https://conda.anaconda.org/conda-forge/noarch/repodata.json.zst", "https://ghcr.io/v2/"];
/// How long `--source auto` waits for an answer, in seconds.
pub const PROBE_SECONDS: u32 = 1;

/// The CUDA version that the gpu environment asks of the machine.
pub const CUDA: &str = "12";
/// The platforms of the exercise, in the lesson's order.
pub const PLATFORMS: [&str; 3] = ["linux-64", "osx-arm64", "win-64"];
/// The platforms among them that have CUDA.
pub const CUDA_PLATFORMS: [&str; 2] = ["linux-64", "win-64"];
/// The platform of the images.
pub const IMAGE_PLATFORM: &str = "linux-64";

/// The label that tells a rehearsal image from a real one.
pub const SOURCE_LABEL: &str = "io.github.pixi-image.source";
/// The port on which the rehearsal channel is served. It stands in the lock, so it must not depend on the machine.
pub const REHEARSAL_PORT: u16 = 8765;
