//! The workspace that a command is about: found as pixi finds it, its lock, and the platform that fits this machine.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use jiff::Timestamp;
use pixi_image::config::Config;
use pixi_image::install::{self, Request};
use pixi_image::manifest::{self, Manifest, ManifestEnvironment, Target};
use pixi_image::model::Environment;
use pixi_image::solve::{self, Checked};
use pixi_image::store::Store;
use pixi_image::{lock, publish};
use toml::de::{DeTable, DeValue};

use super::machine::Machine;
use super::{LockUsage, WorkspaceArgs};
use crate::commands::report::{self, Lines};

const MANIFEST: &str = "pixi.toml";
const DEFAULT: &str = "default";

/// A workspace whose manifest was read.
pub struct Workspace {
    /// The manifest's absolute path.
    pub manifest_path: PathBuf,
    /// Its directory.
    pub root: PathBuf,
    /// Its name: the manifest's, else the directory's.
    pub name: String,
    /// Its version in the manifest.
    pub version: Option<String>,
    /// Its environments.
    pub manifest: Manifest,
    text: toml::Table,
}

/// An environment of the lock for this machine.
pub struct Locked {
    /// Its packages.
    pub environment: Environment,
    /// What its platform promises.
    pub target: Target,
}

/// The value of a variable, where it is set and text.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Workspace {
    /// Finds the workspace: the one that is named, else the one of the current directory or above, else the one whose shell
    /// this is. The order is pixi's; so a local workspace hides the one of an image.
    pub fn locate(arguments: &WorkspaceArgs) -> anyhow::Result<Self> {
        Self::find(arguments)?.with_context(|| {
            let directory = std::env::current_dir().unwrap_or_default();
            format!(
                "could not find {MANIFEST} at directory {}\n  hint: go to the workspace, or name it with --manifest-path",
                directory.display()
            )
        })
    }

    /// Like [`Workspace::locate`]; none if there is no workspace.
    pub fn find(arguments: &WorkspaceArgs) -> anyhow::Result<Option<Self>> {
        if let Some(path) = &arguments.manifest_path {
            let path = if path.is_dir() { path.join(MANIFEST) } else { path.clone() };
            let path = std::fs::canonicalize(&path).with_context(|| format!("cannot read {}", path.display()))?;
            return Self::read(path).map(Some);
        }
        let directory = std::env::current_dir().context("failed to determine the current directory")?;
        let of_shell = variable("PIXI_PROJECT_MANIFEST").map(PathBuf::from);
        match (discover(&directory)?, of_shell) {
            (Some(local), of_shell) => {
                if let Some(other) = of_shell.filter(|path| *path != local)
                    && variable("PIXI_IN_SHELL").is_some()
                {
                    report::line(&format!(
                        " WARN Using local manifest {} rather than {} from environment variable `PIXI_PROJECT_MANIFEST`",
                        local.display(),
                        other.display()
                    ));
                }
                Self::read(local).map(Some)
            }
            (None, Some(path)) => Self::read(std::path::absolute(path)?).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn read(manifest_path: PathBuf) -> anyhow::Result<Self> {
        let text = manifest::text(&manifest_path)?;
        let manifest = manifest::parse(&manifest_path, &text)?;
        warn_of_deprecated(&manifest_path, &text);
        let table: toml::Table = text.parse().with_context(|| format!("cannot read {}", manifest_path.display()))?;
        let root = manifest_path.parent().unwrap_or(Path::new("/")).to_owned();
        let workspace = table.get("workspace").or_else(|| table.get("project"));
        let value = |key: &str| Some(workspace?.get(key)?.as_str()?.to_owned());
        let name = value("name").or_else(|| Some(root.file_name()?.to_str()?.to_owned())).unwrap_or_default();
        let version = value("version");
        Ok(Self { manifest_path, root, name, version, manifest, text: table })
    }

    /// The environment that is meant: the one that is named, else the one whose shell this is, else `default`.
    pub fn environment(&self, name: Option<&str>) -> anyhow::Result<&ManifestEnvironment> {
        let other_root = variable("PIXI_PROJECT_ROOT").is_some_and(|root| Path::new(&root) != self.root);
        let in_shell = !other_root && variable("PIXI_IN_SHELL").is_some();
        let of_shell = if in_shell { variable("PIXI_ENVIRONMENT_NAME") } else { None };
        let name = name.map(str::to_owned).or(of_shell).unwrap_or_else(|| DEFAULT.to_owned());
        let found = self.manifest.environments.iter().find(|environment| environment.name == name);
        found.with_context(|| {
            let names: Vec<_> = self.manifest.environments.iter().map(|known| known.name.as_str()).collect();
            format!("unknown environment '{name}'\n  hint: this workspace has {}", names.join(", "))
        })
    }

    /// Where the lock stands.
    pub fn lock_path(&self) -> PathBuf {
        solve::lock_path(&self.manifest_path)
    }

    /// Sees to it that the lock satisfies the manifest, as far as `usage` says.
    pub fn update_lock(&self, usage: LockUsage, store: &Store) -> anyhow::Result<()> {
        let path = self.lock_path();
        if usage == LockUsage::Frozen {
            return Ok(());
        }
        if usage == LockUsage::Locked || path.exists() {
            let Checked { unmet, unchecked } = solve::check(&self.manifest, &path, Timestamp::now())?;
            for remark in &unchecked {
                report::line(&format!(" WARN {remark}"));
            }
            if unmet.is_empty() {
                return Ok(());
            }
            if usage == LockUsage::Locked {
                bail!(
                    "lock-file not up-to-date with the workspace:\n{}\n  hint: run `pixi lock` where the workspace is \
                     edited, and build again",
                    Checked::lines(&unmet)
                );
            }
        }
        let config = Config::load(Some(&self.root))?;
        let now = Timestamp::now();
        let options = solve::Options { cache: store.root(), offline: false, config: &config, now, among: None };
        let text = solve::solve(&self.manifest, &options, &Lines)?;
        publish::write(&path, text.as_bytes(), 0o644)?;
        Ok(())
    }

    /// The environment for the platform that this machine was declared to be; none fits is an error.
    pub fn declared(&self, environment: &ManifestEnvironment, machine: &Machine) -> anyhow::Result<Locked> {
        match of_machine(environment, machine).find(|target| machine.lacks(target).is_empty()) {
            Some(target) => self.locked(environment, target),
            None => Err(unsupported(environment, machine)),
        }
    }

    /// Like [`Workspace::declared`], but where no platform fits one is taken whose packages ask nothing of the machine that
    /// it lacks.
    pub fn runnable(&self, environment: &ManifestEnvironment, machine: &Machine) -> anyhow::Result<Locked> {
        let unsupported = match self.declared(environment, machine) {
            Err(error) if of_machine(environment, machine).all(|target| !machine.lacks(target).is_empty()) => error,
            found => return found,
        };
        for target in of_machine(environment, machine) {
            let locked = self.locked(environment, target)?;
            if install::needed_of_machine(&locked.environment.packages).all(|depends| machine.meets(depends)) {
                report::line(&format!(
                    " WARN The current machine is not one of the platforms declared for environment '{}', but the \
                     resolved dependencies are compatible with it, continuing.",
                    environment.name
                ));
                return Ok(locked);
            }
        }
        Err(unsupported)
    }

    fn locked(&self, environment: &ManifestEnvironment, target: &Target) -> anyhow::Result<Locked> {
        let path = self.lock_path();
        let row = solve::row_name(&lock::load(&path)?, &environment.name, target);
        let row = row.unwrap_or_else(|| target.platform.name.clone());
        Ok(Locked { environment: lock::read(&path, &environment.name, &row)?, target: target.clone() })
    }

    /// Installs an environment, unless it is there; says whether there was something to do.
    pub fn install(&self, locked: &Locked, store: &Store) -> anyhow::Result<bool> {
        let virtual_packages: Vec<_> =
            locked.target.platform.virtual_packages.iter().map(|package| package.generic()).collect();
        let config = Config::load(Some(&self.root))?;
        let request = Request {
            manifest: &self.manifest_path,
            environment: &locked.environment,
            virtual_packages: &virtual_packages,
            cache: store.root(),
            config: &config,
        };
        Ok(install::install(&request, &Lines)?)
    }

    /// Whether some table of tasks has one of this name.
    pub fn has_task(&self, name: &std::ffi::OsStr) -> bool {
        fn search(table: &toml::Table, task: &str) -> bool {
            table
                .iter()
                .filter_map(|(name, value)| Some((name, value.as_table()?)))
                .any(|(name, table)| (name == "tasks" && table.contains_key(task)) || search(table, task))
        }
        name.to_str().is_some_and(|name| search(&self.text, name))
    }

    /// The first table of the manifest, by its dotted name, that is called `key` and not empty.
    pub fn table_called(&self, key: &str) -> Option<String> {
        fn search(table: &toml::Table, above: &str, key: &str) -> Option<String> {
            table.iter().find_map(|(name, value)| {
                let table = value.as_table()?;
                if name == key && !table.is_empty() {
                    return Some(format!("{above}{name}"));
                }
                search(table, &format!("{above}{name}."), key)
            })
        }
        search(&self.text, "", key)
    }
}

/// The cache: pixi's variables, else the usual place.
pub fn store() -> anyhow::Result<Store> {
    let named = ["PIXI_CACHE_DIR", "RATTLER_CACHE_DIR"].into_iter().find_map(|name| {
        std::env::var_os(name).filter(|value| !value.is_empty()).map(|value| PathBuf::from(value).join("pixi-image"))
    });
    let store = named.map(Store::at).or_else(Store::of_user);
    store.context("there is no place for the cache: HOME is not set\n  hint: name one with PIXI_CACHE_DIR")
}

/// The manifest of a directory or of the nearest one above that has one.
fn discover(start: &Path) -> anyhow::Result<Option<PathBuf>> {
    for directory in start.ancestors() {
        let path = directory.join(MANIFEST);
        if path.is_file() {
            let text = manifest::text(&path)?;
            let table: toml::Table = text.parse().with_context(|| format!("cannot read {}", path.display()))?;
            // A package's manifest belongs to a workspace above.
            if table.contains_key("workspace") || table.contains_key("project") {
                return Ok(Some(path));
            }
        }
        let python = directory.join("pyproject.toml");
        if std::fs::read_to_string(&python).is_ok_and(|text| text.contains("[tool.pixi.")) {
            bail!("{}: only {MANIFEST} is known here\n  hint: install real pixi for this workspace", python.display());
        }
    }
    Ok(None)
}

/// The platforms of an environment that this machine could be, in the manifest's order.
fn of_machine<'a>(environment: &'a ManifestEnvironment, machine: &Machine) -> impl Iterator<Item = &'a Target> {
    let subdir = machine.subdir;
    environment.targets.iter().filter(move |target| target.platform.subdir == subdir)
}

fn unsupported(environment: &ManifestEnvironment, machine: &Machine) -> anyhow::Error {
    let mut said = format!("no platform supported by environment '{}' matches the current system", environment.name);
    let mut overrides = Vec::new();
    for target in &environment.targets {
        let (name, subdir) = (&target.platform.name, target.platform.subdir);
        if subdir != machine.subdir {
            said += &format!("\n    {name}: requires subdir '{subdir}', which this machine can't run");
            continue;
        }
        let lacks = machine.lacks(target);
        let shown: Vec<_> =
            lacks.iter().map(|package| format!("{} >= {}", package.name.as_normalized(), package.version)).collect();
        said += &format!("\n    {name} (subdir {subdir}): missing virtual packages: {}", shown.join(", "));
        overrides.extend(lacks.iter().map(|package| {
            let name = package.name.as_normalized().trim_start_matches('_').to_uppercase();
            format!("CONDA_OVERRIDE_{name}={}", package.version)
        }));
    }
    overrides.dedup();
    let hint = match overrides.as_slice() {
        [] => "add this machine's platform to the manifest, and lock again".to_owned(),
        overrides => format!("mock the missing virtual packages via the environment, e.g.: {}", overrides.join(" ")),
    };
    anyhow::anyhow!("{said}\n  hint: {hint}")
}

/// Pixi says at each run that `[system-requirements]` is deprecated.
fn warn_of_deprecated(path: &Path, text: &str) {
    let Ok(parsed) = DeTable::parse(text) else { return };
    let mut places = Vec::new();
    let mut note = |table: &DeTable<'_>| {
        let found = table.iter().find(|(key, _)| key.get_ref() == "system-requirements");
        places.extend(found.map(|(key, _)| key.span().start));
    };
    note(parsed.get_ref());
    let features = parsed.get_ref().iter().find(|(key, _)| key.get_ref() == "feature");
    if let Some(DeValue::Table(features)) = features.map(|(_, value)| value.get_ref()) {
        features.iter().filter_map(|(_, feature)| feature.get_ref().as_table()).for_each(note);
    }
    if places.is_empty() {
        return;
    }
    places.sort_unstable();
    let count = places.len();
    let mut said =
        format!(" WARN Encountered {count} warning{} while parsing the manifest:", if count == 1 { "" } else { "s" });
    for place in places {
        let before = text.get(..place).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        said += &format!(
            "\n  \u{26a0} the `[system-requirements]` table is deprecated in favor of virtual packages on `platforms`\n   \
             [{}:{line}] declare these on the `platforms` entries instead",
            path.display()
        );
    }
    report::line(&said);
}
