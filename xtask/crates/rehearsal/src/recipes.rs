//! The tables: which conda packages and which base image are made of which Debian packages, and what is left out.
//!
//! The lists are the smallest sets that run PyTorch, found by following the libraries that its files need. Versions are
//! not fixed here: they come from the signed index.

use serde::Serialize;

/// Goes up when the tables stay and the bytes made of them change, so that older results are made anew.
pub const FORMAT: u32 = 2;

/// The time of everything that is made here and not taken from Debian: trixie's first release, 2025-08-09 00:00 UTC,
/// in seconds since 1970.
pub const EPOCH: u32 = 1_754_697_600;

/// Where a conda package's version comes from.
#[derive(Clone, Copy, Debug, Serialize)]
pub enum Version {
    /// The upstream version of this Debian package.
    Of(&'static str),
    /// This one.
    Fixed(&'static str),
}

/// What kind of conda package it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Kind {
    /// Files for one platform, in the subdir linux-64.
    Platform,
    /// Pure Python in the subdir noarch; scripts that installers make: `name = module:function`.
    NoarchPython(&'static [&'static str]),
    /// Any other content in the subdir noarch.
    NoarchGeneric,
}

/// One conda package.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Recipe {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: Version,
    /// Its kind.
    pub kind: Kind,
    /// The Debian packages that are unpacked into it.
    pub debs: &'static [&'static str],
    /// What it depends on; `@` stands for the version of the named package in this channel.
    pub depends: &'static [&'static str],
    /// What it needs of packages that it does not depend on.
    pub constrains: &'static [&'static str],
}

const PYTHON: Recipe = Recipe {
    name: "python",
    version: Version::Of("python3.13"),
    kind: Kind::Platform,
    debs: &[
        "libbz2-1.0",
        "libdb5.3t64",
        "libexpat1",
        "libffi8",
        "liblzma5",
        "libncursesw6",
        "libpython3.13-minimal",
        "libpython3.13-stdlib",
        "libreadline8t64",
        "libsqlite3-0",
        "libssl3t64",
        "libtinfo6",
        "libuuid1",
        "libzstd1",
        "python3-minimal",
        "python3.13",
        "python3.13-minimal",
        "zlib1g",
    ],
    depends: &[],
    constrains: &[],
};

const LIBTORCH: Recipe = Recipe {
    name: "libtorch",
    version: Version::Of("libtorch2.6"),
    kind: Kind::Platform,
    debs: &[
        "ibverbs-providers",
        "libbrotli1",
        "libcap2",
        "libcpp-httplib0.18",
        "libcpuinfo0",
        "libdnnl3.6",
        "libevent-core-2.1-7t64",
        "libevent-pthreads-2.1-7t64",
        "libfabric1",
        "libfmt10",
        "libfuse3-4",
        "libgloo0",
        "libgomp1",
        "libhiredis1.1.0",
        "libhwloc15",
        "libibverbs1",
        "libmunge2",
        "libnl-3-200",
        "libnl-route-3-200",
        "libnuma1",
        "libonnx1t64",
        "libopenmpi40",
        "libpmix2t64",
        "libprotobuf32t64",
        "libpsm2-2",
        "libpthreadpool0",
        "librdmacm1t64",
        "libsleef3",
        "libtensorpipe0",
        "libtorch2.6",
        "libucx0",
        "libudev1",
        "libuv1t64",
        "libvulkan1",
        "libxnnpack0.20241108",
        "libz3-4",
    ],
    depends: &["numpy ==@"],
    constrains: &[],
};

/// The conda packages of the channel, the one with the most work first.
pub const CHANNEL: &[Recipe] = &[
    LIBTORCH,
    PYTHON,
    Recipe {
        name: "numpy",
        version: Version::Of("python3-numpy"),
        kind: Kind::Platform,
        debs: &["libblas3", "libgcc-s1", "libgfortran5", "liblapack3", "libstdc++6", "python3-numpy"],
        depends: &["python >=3.13,<3.14.0a0"],
        constrains: &[],
    },
    Recipe {
        name: "pytorch",
        version: Version::Of("python3-torch"),
        kind: Kind::Platform,
        debs: &["python3-torch"],
        depends: &["libtorch ==@", "numpy ==@", "python >=3.13,<3.14.0a0", "sympy", "typing_extensions"],
        constrains: &[],
    },
    // torch.optim imports sympy.
    Recipe {
        name: "sympy",
        version: Version::Of("python3-sympy"),
        kind: Kind::NoarchPython(&["isympy = isympy:main"]),
        debs: &["python3-sympy"],
        depends: &["mpmath", "python >=3.13"],
        constrains: &[],
    },
    Recipe {
        name: "mpmath",
        version: Version::Of("python3-mpmath"),
        kind: Kind::NoarchPython(&[]),
        debs: &["python3-mpmath"],
        depends: &["python >=3.13"],
        constrains: &[],
    },
    Recipe {
        name: "typing_extensions",
        version: Version::Of("python3-typing-extensions"),
        kind: Kind::NoarchPython(&[]),
        debs: &["python3-typing-extensions"],
        depends: &["python >=3.13"],
        constrains: &[],
    },
    Recipe {
        name: "pytorch-cpu",
        version: Version::Of("python3-torch"),
        kind: Kind::Platform,
        debs: &[],
        depends: &["pytorch ==@"],
        constrains: &[],
    },
    // The same files as pytorch-cpu: only the way to it is that of a GPU environment.
    Recipe {
        name: "pytorch-gpu",
        version: Version::Of("python3-torch"),
        kind: Kind::Platform,
        debs: &[],
        depends: &["__cuda >=12", "cuda-version >=12,<13", "pytorch ==@"],
        constrains: &[],
    },
    Recipe {
        name: "cuda-version",
        version: Version::Fixed("12.9"),
        kind: Kind::NoarchGeneric,
        debs: &[],
        depends: &[],
        constrains: &["__cuda >=12"],
    },
];

/// The Debian packages of the base image, in the order in which they are unpacked.
pub const BASE: &[&str] = &[
    "base-files",
    "base-passwd",
    "bash",
    "ca-certificates",
    "coreutils",
    "dash",
    "debianutils",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "libacl1",
    "libattr1",
    "libc-bin",
    "libc6",
    "libcap2",
    "libgcc-s1",
    "libgmp10",
    "libncursesw6",
    "libpcre2-8-0",
    "libproc2-0",
    "libselinux1",
    "libssl3t64",
    "libsystemd0",
    "libtinfo6",
    "libzstd1",
    "mawk",
    "netbase",
    "procps",
    "sed",
    "tar",
    "zlib1g",
];

/// Directories and files that stay out of the base image: nothing reads them in a container.
pub const BASE_LEAVES_OUT: &[&str] = &[
    "usr/share/bug",
    "usr/share/doc",
    "usr/share/doc-base",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/menu",
];

/// Paths below `/usr` that stay out of conda packages. Only `bin` and `lib` are taken over at all.
pub const CONDA_LEAVES_OUT: &[&str] = &[
    "bin/py3clean",
    "bin/py3compile",
    "bin/py3versions",
    "lib/binfmt.d",
    "lib/modules-load.d",
    "lib/python3.13/EXTERNALLY-MANAGED",
    "lib/python3/dist-packages/mpmath/tests",
    "lib/python3/dist-packages/torch/include",
    "lib/python3/dist-packages/torch/test",
    "lib/systemd",
    "lib/udev",
    // Links into the package of development files, which is not there.
    "lib/x86_64-linux-gnu/python3-numpy",
];

/// PyTorch's own tests and tools (28 MB); the one program in there that it runs itself is kept.
pub const TORCH_PROGRAMS: &str = "lib/python3/dist-packages/torch/bin";
/// See [`TORCH_PROGRAMS`].
pub const TORCH_KEEPS: &str = "torch_shm_manager";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dependency_is_in_the_channel_or_virtual() {
        let names: Vec<&str> = CHANNEL.iter().map(|recipe| recipe.name).collect();
        for recipe in CHANNEL {
            for dependency in recipe.depends {
                let name = dependency.split(' ').next().unwrap();
                assert!(name.starts_with("__") || names.contains(&name), "{} needs {name}", recipe.name);
            }
        }
    }

    #[test]
    fn lists_are_sorted_and_no_deb_is_in_two_conda_packages() {
        let sorted = |list: &[&str]| list.is_sorted_by(|a, b| a < b);
        assert!(sorted(BASE) && sorted(BASE_LEAVES_OUT) && sorted(CONDA_LEAVES_OUT));
        let mut seen = std::collections::BTreeSet::new();
        for recipe in CHANNEL {
            assert!(sorted(recipe.debs) && sorted(recipe.depends), "{}", recipe.name);
            for deb in recipe.debs {
                assert!(seen.insert(deb), "{deb}");
            }
        }
    }
}
