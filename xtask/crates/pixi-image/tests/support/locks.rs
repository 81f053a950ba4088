//! Manifests of all that can be locked, and the two channels that they ask.

use std::path::Path;

use serde_json::{Value, json};

use crate::channel::Channel;
use crate::web::Web;

/// A manifest, in which `{main}` and `{extra}` stand for channels.
pub struct Case {
    /// What it is about.
    pub name: &'static str,
    /// The manifest below `[workspace]` with its channels.
    manifest: &'static str,
    /// The environments that can be installed on a machine of linux-64 with a GPU.
    pub install: &'static [&'static str],
    /// Whether pixi does not look at something that it says.
    pub pixi_ignores: bool,
    /// What is taken, by environment and platform.
    pub picks: &'static [(&'static str, &'static str, &'static [&'static str])],
}

impl Case {
    /// Makes the channels, and the manifest that asks them; it will stand in `directory`.
    pub fn prepare(&self, web: &Web, directory: &Path) -> String {
        main().serve_at(web, "/main");
        extra().serve_at(web, "/extra");
        let local = directory.join("local");
        main().write(&local);
        addressed(self.manifest, web).replace("{local}", &format!("file://{}", local.display()))
    }
}

/// A manifest with the addresses of both channels.
pub fn addressed(manifest: &str, web: &Web) -> String {
    manifest.replace("{main}", &web.url("/main")).replace("{extra}", &web.url("/extra"))
}

/// The channel that is asked first.
pub fn main() -> Channel {
    let old = json!({"noarch": "generic", "timestamp": 1_600_000_000_000_u64});
    let limits = json!({"noarch": "generic", "constrains": ["lib <3"], "license": "MIT"});
    let newer_build = json!({"noarch": "generic", "build_number": 1});
    let mut channel = Channel::exercise()
        .package_with("noarch", "tool-1.0-h_0", &["lib >=1"], old.clone())
        .package_with("noarch", "tool-1.5-h_0", &["lib >=1"], limits)
        .package_with("noarch", "tool-2.0-h_0", &["lib >=2"], generic())
        .package_with("noarch", "lib-1.0-h_0", &[], old)
        .package_with("noarch", "lib-2.0-h_0", &[], generic())
        .package_with("noarch", "lib-2.0-h_1", &[], newer_build)
        .package_with("noarch", "lib-3.0-h_0", &[], generic())
        .package_with("noarch", "both-1.0-main_0", &[], generic())
        .package("linux-64", "old-glibc-1.0-h_0", &["__glibc >=2.17"])
        .package("linux-64", "new-glibc-1.0-h_0", &["__glibc >=2.35"])
        .package("linux-64", "kernel-1.0-h_0", &["__linux >=5"])
        .package("linux-64", "fast-1.0-v1_0", &["__archspec 1.* x86_64"])
        .package("linux-64", "fast-1.0-v3_0", &["__archspec 1.* x86_64_v3"])
        .package("linux-64", "gpu-arch-1.0-h_0", &["__cuda_arch >=8"])
        .package("linux-64", "musl-1.0-h_0", &["__musl >=1.2"]);
    for (subdir, needs) in [("osx-arm64", "__osx >=13"), ("win-64", "__win")] {
        channel = channel.package(subdir, "native-1.0-h_0", &[needs]);
    }
    channel.package("linux-64", "native-1.0-h_0", &["__unix", "__linux"])
}

/// The channel that is asked after it.
pub fn extra() -> Channel {
    Channel::default()
        .package_with("noarch", "both-2.0-extra_0", &[], generic())
        .package_with("noarch", "lib-9.0-extra_0", &[], generic())
        .package_with("noarch", "only-extra-1.0-h_0", &["both"], generic())
}

/// A package that needs no python to be installed.
fn generic() -> Value {
    json!({"noarch": "generic"})
}

/// All that can be said.
pub const CASES: &[Case] = &[
    Case {
        name: "the_exercise",
        manifest: "[workspace]\nchannels = [\"{main}\"]\nname = \"x\"\nplatforms = [\"linux-64\", \"osx-arm64\", \"win-64\"]\n\
                   [feature.cpu.dependencies]\npytorch-cpu = \">=2.8.0,<3\"\n[feature.gpu.system-requirements]\ncuda = \"12\"\n\
                   [feature.gpu.target.linux-64.dependencies]\npytorch-gpu = \">=2.8.0,<3\"\n\
                   [feature.gpu.target.win-64.dependencies]\npytorch-gpu = \">=2.8.0,<3\"\n\
                   [environments]\ncpu = [\"cpu\"]\ngpu = [\"gpu\"]\n",
        install: &["default", "cpu", "gpu"],
        pixi_ignores: false,
        picks: &[
            (
                "cpu",
                "win-64",
                &[
                    "python-3.12.1-0_cpython",
                    "pytorch-2.8.0-cpu_1",
                    "pytorch-cpu-2.8.0-cpu_1",
                    "typing-extensions-4.0-pyhd_0",
                ],
            ),
            (
                "gpu",
                "linux-64-cuda-12",
                &[
                    "cuda-version-12.9-h_0",
                    "python-3.12.1-0_cpython",
                    "pytorch-2.8.0-cuda129_1",
                    "pytorch-gpu-2.8.0-cuda129_1",
                ],
            ),
            ("gpu", "osx-arm64", &[]),
        ],
    },
    Case {
        name: "the_exercise_with_rich_platforms",
        manifest: "[workspace]\nchannels = [\"{main}\"]\nname = \"x\"\nplatforms = [\"linux-64\", \"osx-arm64\", \"win-64\", \
                   { name = \"linux-64-cuda\", platform = \"linux-64\", cuda = \"12\" }, { platform = \"win-64\", cuda = \"12\" }]\n\
                   [feature.cpu]\nplatforms = [\"linux-64\", \"osx-arm64\", \"win-64\"]\ndependencies = { pytorch-cpu = \"*\" }\n\
                   [feature.gpu]\nplatforms = [\"linux-64-cuda\", \"win-64-cuda-12\"]\ndependencies = { pytorch-gpu = \"*\" }\n\
                   [environments]\ncpu = [\"cpu\"]\ngpu = [\"gpu\"]\n",
        install: &["default", "cpu", "gpu"],
        pixi_ignores: false,
        picks: &[
            ("default", "linux-64-cuda", &[]),
            (
                "gpu",
                "win-64-cuda-12",
                &[
                    "cuda-version-12.9-h_0",
                    "python-3.12.1-0_cpython",
                    "pytorch-2.8.0-cuda129_1",
                    "pytorch-gpu-2.8.0-cuda129_1",
                ],
            ),
        ],
    },
    Case {
        name: "strict_priority_takes_the_first_channel",
        manifest: "[workspace]\nchannels = [\"{main}\", \"{extra}\"]\nplatforms = [\"linux-64\"]\n\
                   [dependencies]\nonly-extra = \"*\"\nlib = \"*\"\n",
        install: &["default"],
        pixi_ignores: false,
        picks: &[("default", "linux-64", &["both-1.0-main_0", "lib-3.0-h_0", "only-extra-1.0-h_0"])],
    },
    Case {
        name: "disabled_and_flexible_priority",
        manifest: "[workspace]\nchannels = [\"{main}\", \"{extra}\"]\nplatforms = [\"linux-64\"]\n\
                   [dependencies]\nboth = \"*\"\n[feature.any]\nchannel-priority = \"disabled\"\n\
                   [feature.flexible]\nchannel-priority = \"flexible\"\n[environments]\nany = [\"any\"]\nflexible = [\"flexible\"]\n",
        install: &["any", "flexible"],
        pixi_ignores: false,
        picks: &[
            ("any", "linux-64", &["both-2.0-extra_0"]),
            ("default", "linux-64", &["both-1.0-main_0"]),
            ("flexible", "linux-64", &["both-1.0-main_0"]),
        ],
    },
    Case {
        name: "channels_with_priority_and_of_features",
        manifest: "[workspace]\nchannels = [\"{main}\"]\nplatforms = [\"linux-64\"]\n[dependencies]\nboth = \"*\"\n\
                   [feature.first]\nchannels = [{ channel = \"{extra}\", priority = 1 }, \"{main}\"]\n\
                   [feature.last]\nchannels = [{ channel = \"{extra}\", priority = -1 }]\n\
                   [feature.named.dependencies]\nlib = { version = \"*\", channel = \"{extra}\" }\n\
                   [feature.named]\nchannels = [\"{main}\", \"{extra}\"]\nchannel-priority = \"disabled\"\n\
                   [environments]\nfirst = [\"first\"]\nlast = [\"last\"]\nnamed = [\"named\"]\n",
        install: &["first", "named"],
        pixi_ignores: false,
        picks: &[
            ("default", "linux-64", &["both-1.0-main_0"]),
            ("first", "linux-64", &["both-2.0-extra_0"]),
            ("last", "linux-64", &["both-1.0-main_0"]),
            ("named", "linux-64", &["both-2.0-extra_0", "lib-9.0-extra_0"]),
        ],
    },
    Case {
        name: "strategies",
        manifest: "[workspace]\nchannels = [\"{main}\"]\nplatforms = [\"linux-64\"]\nsolve-strategy = \"lowest\"\n\
                   [dependencies]\ntool = \"*\"\n[feature.direct]\nsolve-strategy = \"lowest-direct\"\n\
                   [feature.high]\nsolve-strategy = \"highest\"\n[feature.none.dependencies]\ntool = \">=1\"\n\
                   [environments]\ndirect = [\"direct\"]\nhigh = [\"high\"]\n\
                   none = { features = [\"none\"], no-default-feature = true }\n",
        install: &["default", "direct", "high", "none"],
        pixi_ignores: false,
        picks: &[
            ("default", "linux-64", &["lib-1.0-h_0", "tool-1.0-h_0"]),
            ("direct", "linux-64", &["lib-3.0-h_0", "tool-1.0-h_0"]),
            ("high", "linux-64", &["lib-3.0-h_0", "tool-2.0-h_0"]),
            ("none", "linux-64", &["lib-3.0-h_0", "tool-2.0-h_0"]),
        ],
    },
    Case {
        name: "exclude_newer",
        manifest: "[workspace]\nchannels = [\"{main}\", { channel = \"{extra}\", exclude-newer = \"2024-01-01\" }]\n\
                   platforms = [\"linux-64\"]\nexclude-newer = \"2021-01-01T00:00:00Z\"\n\
                   [dependencies]\ntool = \"*\"\n[feature.more.dependencies]\nonly-extra = \"*\"\nboth = \"2.*\"\n\
                   [environments]\nmore = { features = [\"more\"], channel-priority = \"disabled\" }\n",
        install: &["default", "more"],
        pixi_ignores: false,
        picks: &[
            ("default", "linux-64", &["lib-1.0-h_0", "tool-1.0-h_0"]),
            ("more", "linux-64", &["both-2.0-extra_0", "lib-9.0-extra_0", "only-extra-1.0-h_0", "tool-1.0-h_0"]),
        ],
    },
    Case {
        name: "exclude_newer_of_packages",
        manifest: "[workspace]\nchannels = [\"{main}\"]\nplatforms = [\"linux-64\"]\n[exclude-newer]\ntool = \"2021-01-01\"\n\
                   lib = \"1d\"\n[dependencies]\ntool = \"*\"\n",
        install: &["default"],
        pixi_ignores: false,
        picks: &[("default", "linux-64", &["lib-3.0-h_0", "tool-1.0-h_0"])],
    },
    Case {
        name: "constraints",
        manifest: "[workspace]\nchannels = [\"{main}\"]\nplatforms = [\"linux-64\", \"osx-arm64\"]\n\
                   [dependencies]\ntool = \"*\"\n[constraints]\nlib = \"<3\"\nunused = \"*\"\n\
                   [target.osx-arm64.constraints]\nlib = \"<2.5\"\n[feature.f.constraints]\ntool = \"<2\"\n\
                   [environments]\nf = [\"f\"]\n",
        install: &["default", "f"],
        pixi_ignores: false,
        picks: &[
            ("default", "linux-64", &["lib-2.0-h_1", "tool-2.0-h_0"]),
            ("f", "osx-arm64", &["lib-2.0-h_1", "tool-1.5-h_0"]),
        ],
    },
    Case {
        name: "what_a_requirement_may_say",
        manifest: "[workspace]\nchannels = [\"{main}\"]\nplatforms = [\"linux-64\"]\ndependencies = { python = \"3.12.*\" }\n\
                   [dependencies]\nlib = { version = \"2.*\", build = \"h_*\", build-number = \"<1\" }\n\
                   tool = { version = \"*\", license = \"MIT\" }\npython = { workspace = true, build = \"*_cpython\" }\n\
                   ",
        install: &["default"],
        pixi_ignores: false,
        picks: &[("default", "linux-64", &["lib-2.0-h_0", "python-3.12.1-0_cpython", "tool-1.5-h_0"])],
    },
    Case {
        name: "a_requirement_may_name_a_file",
        manifest: "[workspace]\nchannels = [\"{main}\"]\nplatforms = [\"linux-64\"]\n\
                   [dependencies]\npytorch = { file-name = \"pytorch-2.7.0-cpu_1.conda\", subdir = \"linux-64\" }\n",
        install: &["default"],
        pixi_ignores: true,
        picks: &[(
            "default",
            "linux-64",
            &["python-3.12.1-0_cpython", "pytorch-2.7.0-cpu_1", "typing-extensions-4.0-pyhd_0"],
        )],
    },
    Case {
        name: "targets_and_platforms_of_features",
        manifest: "[workspace]\nchannels = [\"{main}\"]\nplatforms = [\"linux-64\", \"osx-arm64\"]\n[dependencies]\nnative = \"*\"\n\
                   tool = \"*\"\n[target.unix.dependencies]\ntool = \"1.*\"\n[target.\"osx-*\".dependencies]\ntool = \"1.0\"\n\
                   [target.win.dependencies]\nlib = \"1.*\"\n[target.linux-64.build-dependencies]\nlib = \"2.*\"\n\
                   [feature.mac]\nplatforms = [\"osx-arm64\"]\n[feature.win]\nplatforms = [\"win-64\"]\n\
                   [environments]\nmac = [\"mac\"]\nwin = [\"win\"]\n",
        install: &["default"],
        pixi_ignores: false,
        picks: &[
            ("default", "linux-64", &["lib-2.0-h_1", "native-1.0-h_0", "tool-1.5-h_0"]),
            ("mac", "osx-arm64", &["lib-3.0-h_0", "native-1.0-h_0", "tool-1.0-h_0"]),
            ("win", "win-64", &["lib-1.0-h_0", "native-1.0-h_0", "tool-1.5-h_0"]),
        ],
    },
    Case {
        name: "solve_groups",
        manifest: "[workspace]\nchannels = [\"{main}\"]\nplatforms = [\"linux-64\"]\n[dependencies]\nlib = \"*\"\n\
                   [feature.old.dependencies]\ntool = \"1.5\"\n[feature.low]\nsolve-strategy = \"lowest\"\n\
                   [feature.extra]\nchannels = [\"{extra}\"]\ndependencies = { only-extra = \"*\" }\n\
                   [environments]\ndefault = { solve-group = \"g\" }\nold = { features = [\"old\"], solve-group = \"g\" }\n\
                   extra = { features = [\"extra\"], no-default-feature = true, solve-group = \"g\" }\nfree = []\n",
        install: &["default", "old", "extra", "free"],
        pixi_ignores: false,
        picks: &[
            ("default", "linux-64", &["lib-2.0-h_1"]),
            ("extra", "linux-64", &["both-1.0-main_0", "only-extra-1.0-h_0"]),
            ("free", "linux-64", &["lib-3.0-h_0"]),
            ("old", "linux-64", &["lib-2.0-h_1", "tool-1.5-h_0"]),
        ],
    },
    Case {
        name: "environments_that_are_features",
        manifest: "[workspace]\nchannels = [\"{main}\"]\nplatforms = [\"linux-64\"]\n[dependencies]\nlib = \"*\"\n\
                   [environments.e]\ndependencies = { tool = \"1.*\" }\nconstraints = { lib = \"<2\" }\n\
                   [environments.bare]\nfeatures = []\nno-default-feature = true\n",
        install: &["e", "bare"],
        pixi_ignores: false,
        picks: &[
            ("bare", "linux-64", &[]),
            ("default", "linux-64", &["lib-3.0-h_0"]),
            ("e", "linux-64", &["lib-1.0-h_0", "tool-1.5-h_0"]),
        ],
    },
    Case {
        name: "system_requirements",
        manifest: "[workspace]\nchannels = [\"{main}\"]\nplatforms = [\"linux-64\", \"osx-arm64\"]\n\
                   [target.linux.dependencies]\nold-glibc = \"*\"\n[feature.new.system-requirements]\nlinux = \"5.10\"\nmacos = \"14.0\"\n\
                   libc = { family = \"glibc\", version = \"2.36\" }\n[feature.new.target.linux.dependencies]\nnew-glibc = \"*\"\n\
                   kernel = \"*\"\n[feature.default-ones.system-requirements]\nlibc = \"2.28\"\nlinux = \"4.18\"\n\
                   [feature.both.system-requirements]\ncuda = \"12.4\"\nlibc = \"2.30\"\n\
                   [feature.musl.system-requirements]\nlibc = { family = \"musl\", version = \"1.2\" }\n\
                   [feature.musl.target.linux.dependencies]\nmusl = \"*\"\n[environments]\nnew = [\"new\"]\n\
                   plain = [\"default-ones\"]\nboth = [\"new\", \"both\"]\n\
                   musl = { features = [\"musl\"], no-default-feature = true }\n",
        install: &["default", "plain"],
        pixi_ignores: false,
        picks: &[
            (
                "both",
                "linux-64-cuda-12-4-glibc-2-36-linux-5-10",
                &["kernel-1.0-h_0", "new-glibc-1.0-h_0", "old-glibc-1.0-h_0"],
            ),
            ("plain", "linux-64", &["old-glibc-1.0-h_0"]),
            ("musl", "linux-64-musl-1-2", &["musl-1.0-h_0"]),
        ],
    },
    Case {
        name: "platforms_with_any_virtual_package",
        manifest: "[workspace]\nchannels = [\"{main}\"]\nplatforms = [\"linux-64\", { platform = \"linux-64\", archspec = \"x86_64_v3\" }, \
                   { name = \"box\", platform = \"linux-64\", cuda = { driver = \"12\", arch = \"8.6\" }, __amdgpu = \"1\" }]\n\
                   [feature.fast]\nplatforms = [\"linux-64-archspec-x86-64-v3\"]\ndependencies = { fast = { build = \"v3*\" } }\n\
                   [feature.slow]\nplatforms = [\"linux-64\"]\ndependencies = { fast = \"*\" }\n\
                   [feature.box]\nplatforms = [\"box\"]\ndependencies = { gpu-arch = \"*\" }\n\
                   [environments]\nfast = [\"fast\"]\nslow = [\"slow\"]\nbox = [\"box\"]\n",
        install: &["default"],
        pixi_ignores: false,
        picks: &[
            ("box", "box", &["gpu-arch-1.0-h_0"]),
            ("fast", "linux-64-archspec-x86-64-v3", &["fast-1.0-v3_0"]),
            ("slow", "linux-64", &["fast-1.0-v1_0"]),
        ],
    },
    Case {
        name: "a_channel_of_this_machine_and_options_of_pypi",
        manifest: "[workspace]\nchannels = [\"{local}\"]\nplatforms = [\"linux-64\"]\nrequires-pixi = \">=0.70\"\n\
                   pypi-options = { prerelease-mode = \"allow\" }\n[dependencies]\ntyping-extensions = \"*\"\n\
                   [feature.near]\nchannels = [\"./local\"]\n[environments]\nnear = { features = [\"near\"], no-default-feature = true, \
                   dependencies = { lib = \"*\" } }\n",
        install: &["default", "near"],
        pixi_ignores: false,
        picks: &[("default", "linux-64", &["python-3.13.1-0_cpython", "typing-extensions-4.0-pyhd_0"])],
    },
];
