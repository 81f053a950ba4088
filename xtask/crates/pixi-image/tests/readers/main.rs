//! Our images in the hands of every reader that we know of and did not write.
//!
//! One environment of hard cases (`cases.rs`) is built into both formats. What it must hold is known without any code of
//! ours: rattler's Installer links the same packages, GNU tar unpacks the base image. Each line of [`READERS`] is a test;
//! where its program is not there the test is skipped, and says so; with `XTASK_REQUIRE_ENGINES=1`, as in CI, it fails.

#[cfg(target_os = "linux")]
mod cases;
#[cfg(target_os = "linux")]
#[allow(dead_code)] // each test uses its part of it
#[path = "../runner/image.rs"]
mod image;
#[cfg(target_os = "linux")]
mod lab;
#[cfg(target_os = "linux")]
mod large;
#[cfg(target_os = "linux")]
mod listing;
#[cfg(target_os = "linux")]
#[allow(dead_code)]
#[path = "../support/packages.rs"]
mod packages;
#[cfg(target_os = "linux")]
mod programs;
#[cfg(target_os = "linux")]
mod refusals;
#[cfg(target_os = "linux")]
#[allow(dead_code)]
#[path = "../support/web.rs"]
mod web;
#[cfg(target_os = "linux")]
#[allow(dead_code)]
#[path = "../support/workspace.rs"]
mod workspace;

#[cfg(target_os = "linux")]
use linux::{lister, main as on_linux};

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: images are read on Linux");
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    on_linux()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io::Write as _;
    use std::path::Path;
    use std::process::{Command, ExitCode};
    use std::sync::{Arc, OnceLock};

    use libtest_mimic::{Arguments, Completion, Failed, Trial};

    use crate::lab::Lab;
    use crate::listing::Listing;
    use crate::programs::{self, Need};
    use crate::{large, refusals};

    /// A reader, as a test.
    struct Reader {
        name: &'static str,
        needs: &'static [Need],
        run: fn(&Lab) -> anyhow::Result<()>,
    }

    const READERS: &[Reader] = &[
        // The squashfs of the SIF.
        Reader {
            name: "the_kernel_mounts_what_rattler_links",
            needs: &[Need::Root, Need::Program("losetup")],
            run: programs::kernel,
        },
        Reader {
            name: "unsquashfs_extracts_the_same",
            needs: &[Need::Root, Need::Program("unsquashfs")],
            run: programs::unsquashfs,
        },
        Reader { name: "backhand_reads_the_same", needs: &[], run: programs::backhand },
        Reader {
            name: "apptainer_shows_the_same_to_an_ordinary_user",
            needs: &[Need::Apptainer],
            run: programs::apptainer,
        },
        // The layers of the archive, one by one.
        Reader { name: "gnu_tar_unpacks_the_same", needs: &[Need::Root, Need::Program("tar")], run: programs::gnu_tar },
        Reader {
            name: "bsdtar_unpacks_the_same",
            needs: &[Need::Root, Need::Program("bsdtar")],
            run: programs::bsdtar,
        },
        Reader {
            name: "python_unpacks_the_same",
            needs: &[Need::Root, Need::Program("python3")],
            run: programs::python,
        },
        // The archive as an image.
        Reader { name: "umoci_unpacks_the_same", needs: &[Need::Root, Need::Program("umoci")], run: programs::umoci },
        Reader {
            name: "docker_loads_and_exports_the_same",
            needs: &[Need::Root, Need::Engine("docker")],
            run: programs::docker,
        },
        Reader {
            name: "podman_loads_and_exports_the_same",
            needs: &[Need::Root, Need::Engine("podman")],
            run: programs::podman,
        },
    ];

    /// What is not one environment for all.
    type Other = (&'static str, &'static [Need], fn() -> anyhow::Result<()>);

    const OTHERS: &[Other] = &[
        ("a_directory_of_100000_files_is_read_whole", large::CROWD_NEEDS, large::crowd),
        ("a_file_beyond_4_gib_is_read_by_all_that_need_not_store_it", large::GIANT_NEEDS, large::giant),
        ("what_a_format_cannot_hold_is_refused_with_a_reason", &[], refusals::run),
    ];

    pub fn main() -> ExitCode {
        let words: Vec<String> = std::env::args().collect();
        if words.get(1).is_some_and(|word| word == "--list") {
            return list(&words[2..]);
        }
        let lab = Arc::new(OnceLock::new());
        let readers = READERS.iter().map(|reader| {
            let lab = Arc::clone(&lab);
            Trial::ignorable_test(reader.name, move || {
                trial(reader.needs, || {
                    let lab = lab.get_or_init(|| Lab::set_up().map_err(|error| format!("{error:#}")));
                    (reader.run)(lab.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?)
                })
            })
        });
        let others = OTHERS.iter().map(|(name, needs, run)| Trial::ignorable_test(*name, move || trial(needs, run)));
        libtest_mimic::run(&Arguments::from_args(), readers.chain(others).collect()).exit_code()
    }

    fn trial(needs: &[Need], run: impl FnOnce() -> anyhow::Result<()>) -> Result<Completion, Failed> {
        match needs.iter().find_map(Need::missing) {
            Some(reason) if programs::required() => Err(format!("{reason}, but it is required here").into()),
            Some(reason) => Ok(Completion::ignored_with(format!("skipped: {reason}"))),
            None => run().map(|()| Completion::Completed).map_err(|error| format!("{error:#}").into()),
        }
    }

    /// This program as the one that lists a directory, wherever it can be started: inside of containers and namespaces too.
    pub fn lister(directory: &Path, tops: &[&str]) -> Command {
        let mut lister = Command::new(std::env::current_exe().unwrap());
        lister.arg("--list").args(tops).current_dir(directory);
        lister
    }

    fn list(tops: &[String]) -> ExitCode {
        let tops: Vec<&str> = tops.iter().map(String::as_str).collect();
        let written = Listing::of_current_directory(&tops)
            .and_then(|listing| std::io::stdout().write_all(&rmp_serde::to_vec(&listing).unwrap()));
        match written {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        }
    }
}
