//! The platforms of a workspace, and the two ways in which they say that the gpu environment needs CUDA.

use toml_edit::{InlineTable, Item, TableLike, Value};

use super::change::Change;
use super::manifest::{Manifest, push, replace, retain, tidy_first};
use super::{GPU, PlatformStyle, Stop};
use crate::pins;

/// The system requirements of the gpu feature.
const REQUIREMENTS: [&str; 3] = ["feature", "gpu", "system-requirements"];

/// A row of the workspace's platforms.
pub struct Row {
    /// What features call it; none where pixi makes up a name of more than a CUDA version.
    pub name: Option<String>,
    /// The conda platform.
    pub subdir: String,
    cuda: Option<String>,
    /// What else is promised about the machine.
    more: bool,
}

/// What a change of style took out, to be put in where the other style has it.
#[derive(Default)]
pub struct Moved {
    /// The CUDA version.
    pub cuda: Option<String>,
    /// What stood for pytorch-gpu.
    pub specification: Option<Value>,
}

impl Row {
    /// Reads a row; none for what pixi does not take for one.
    pub fn read(value: &Value) -> Option<Self> {
        if let Some(subdir) = value.as_str() {
            return Some(Self { name: Some(subdir.to_owned()), subdir: subdir.to_owned(), cuda: None, more: false });
        }
        let table = value.as_inline_table()?;
        let text = |key| table.get(key).map(|value| value.as_str().map(str::to_owned));
        let name = text("name").map_or(Some(None), |name| name.map(Some))?;
        let platform = text("platform").map_or(Some(None), |platform| platform.map(Some))?;
        let subdir = platform.or_else(|| name.clone())?;
        let driver = |cuda: &Value| cuda.as_inline_table()?.get("driver")?.as_str().map(str::to_owned);
        let cuda = table.get("cuda").map(|cuda| cuda.as_str().map(str::to_owned).or_else(|| driver(cuda)));
        let more = table.iter().any(|(key, value)| match key {
            "name" | "platform" => false,
            "cuda" => !value.is_str(),
            _ => true,
        });
        let cuda = cuda.map_or(Some(None), |cuda| cuda.map(Some))?;
        let derived = match &cuda {
            _ if more => None,
            None => Some(subdir.clone()),
            Some(cuda) => Some(derived_name(&subdir, cuda)),
        };
        Some(Self { name: name.or(derived), subdir, cuda, more })
    }

    /// Whether features call it so.
    pub fn is_named(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name)
    }

    /// Whether it is nothing but a conda platform.
    fn is_plain(&self) -> bool {
        self.promises_nothing() && self.name.as_ref() == Some(&self.subdir)
    }

    fn promises_nothing(&self) -> bool {
        self.cuda.is_none() && !self.more
    }

    fn is_called(&self, names: &[String]) -> bool {
        self.name.as_ref().is_some_and(|name| names.contains(name))
    }
}

/// `linux-64-cuda-12-4`: what pixi calls a platform with CUDA that has no name.
fn derived_name(subdir: &str, cuda: &str) -> String {
    let parts: Vec<_> = cuda.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty()).collect();
    format!("{subdir}-cuda-{}", parts.join("-"))
}

/// The names that the gpu feature's platforms get in rich style.
fn rich_name(subdir: &str) -> String {
    format!("{subdir}-cuda")
}

impl Manifest {
    /// The rows of the workspace's platforms.
    pub fn rows(&self) -> Result<Vec<Row>, Stop> {
        let platforms = self.array(&[self.workspace], "platforms")?;
        let row = |(index, value): (usize, &Value)| {
            let place = format!("[{index}]");
            let path = [self.workspace, "platforms", &place];
            Row::read(value).ok_or_else(|| Stop::shape(&path, "a platform's name or a table of one", value.type_name()))
        };
        platforms.into_iter().flatten().enumerate().map(row).collect()
    }

    /// How the workspace's platforms are written: pixi takes system requirements only beside plain ones.
    pub fn style(&self) -> Result<PlatformStyle, Stop> {
        let plain = self.rows()?.iter().all(Row::is_plain);
        Ok(if plain { PlatformStyle::Legacy } else { PlatformStyle::Rich })
    }

    /// Adds a conda platform, unless the workspace has it under whatever name.
    pub fn platform(&mut self, subdir: &str) -> Result<(), Stop> {
        if self.rows()?.iter().any(|row| row.subdir == subdir && row.promises_nothing()) {
            return Ok(());
        }
        push(self.array_mut(&[self.workspace], "platforms")?, subdir.into());
        self.changes.push(Change::Platform { name: subdir.to_owned(), subdir: subdir.to_owned(), feature: None });
        Ok(())
    }

    /// Adds a platform to those that a feature is limited to, and says whether that was needed.
    fn platform_of(&mut self, feature: &str, name: &str) -> Result<bool, Stop> {
        let path = ["feature", feature];
        if self.strings(&path, "platforms")?.iter().any(|present| present == name) {
            return Ok(false);
        }
        push(self.array_mut(&path, "platforms")?, name.into());
        Ok(true)
    }

    /// Limits the cpu feature to platforms that promise nothing, as it is where all of them are so: those of the
    /// exercise and what is asked for, and where it was not limited, all that there are.
    pub fn limit_cpu(&mut self, asked: &[String]) -> Result<(), Stop> {
        let is_limited = self.array(&["feature", "cpu"], "platforms")?.is_some();
        let wanted = |row: &Row| {
            let subdir = row.subdir.as_str();
            !is_limited || pins::PLATFORMS.contains(&subdir) || asked.iter().any(|asked| asked == subdir)
        };
        for row in self.rows()?.into_iter().filter(|row| row.promises_nothing() && wanted(row)) {
            let name = row.name.unwrap_or_else(|| row.subdir.clone());
            if self.platform_of("cpu", &name)? {
                self.changes.push(Change::Platform { name, subdir: row.subdir, feature: Some("cpu".to_owned()) });
            }
        }
        Ok(())
    }

    /// Sees to the CUDA version among the system requirements. What stands there stays unless another one is wanted.
    pub fn cuda_requirement(&mut self, wanted: Option<&str>, moved: Option<String>) -> Result<(), Stop> {
        let old = self.string(&REQUIREMENTS, "cuda")?.map(str::to_owned);
        let new = wanted.map(str::to_owned).or_else(|| old.clone()).or(moved).unwrap_or_else(|| pins::CUDA.to_owned());
        if old.as_ref() == Some(&new) {
            self.cuda_is_there(wanted);
            return Ok(());
        }
        self.set(&REQUIREMENTS, "cuda", new.as_str())?;
        self.changes.push(Change::CudaRequirement { old, new });
        Ok(())
    }

    /// Sees to the platforms with CUDA, and to the gpu feature being limited to them.
    pub fn cuda_platforms(&mut self, wanted: Option<&str>, moved: Option<String>) -> Result<(), Stop> {
        self.refuse_requirements()?;
        let before = self.changes.len();
        let rows = self.rows()?;
        let named = self.strings(&GPU, "platforms")?;
        let known = named.iter().all(|name| rows.iter().any(|row| row.is_named(name)));
        if let Some(index) = rows.iter().position(|row| row.name.is_none()).filter(|_| !known) {
            let reason = "has no `name`, so it is not clear which one the gpu feature means: give it one";
            return Err(self.refused_row(index, reason.to_owned()));
        }
        let current = rows.iter().find(|row| row.is_called(&named) && row.cuda.is_some());
        let current = wanted.map(str::to_owned).or_else(|| current.and_then(|row| row.cuda.clone())).or(moved);
        let version = current.unwrap_or_else(|| pins::CUDA.to_owned());
        for subdir in pins::CUDA_PLATFORMS {
            let own = |row: &&Row| row.subdir == subdir && row.cuda.is_some();
            if !rows.iter().filter(own).any(|row| row.is_called(&named)) {
                self.cuda_platform(&rows, subdir, &version)?;
            }
        }
        if let Some(wanted) = wanted {
            self.set_cuda(wanted)?;
            if self.changes.len() == before {
                self.cuda_is_there(Some(wanted));
            }
        }
        Ok(())
    }

    /// One platform with CUDA for the gpu feature: one of the same definition if there is one, for pixi wants no two.
    fn cuda_platform(&mut self, rows: &[Row], subdir: &str, version: &str) -> Result<(), Stop> {
        let same = |row: &&Row| row.subdir == subdir && row.cuda.as_deref() == Some(version) && !row.more;
        let own = rich_name(subdir);
        let taken = rows.iter().position(|row| row.name.as_ref() == Some(&own));
        let mut cuda = version.to_owned();
        let name = match (rows.iter().find(same).and_then(|row| row.name.clone()), taken) {
            (Some(name), _) => name,
            (None, Some(index)) => match &rows[index] {
                Row { cuda: Some(present), subdir: its, .. } if its == subdir => {
                    cuda.clone_from(present);
                    own
                }
                _ => return Err(self.refused_row(index, format!("has the name that {subdir} with CUDA should get"))),
            },
            (None, None) => {
                let mut row = InlineTable::new();
                row.extend([("name", own.as_str()), ("platform", subdir), ("cuda", version)]);
                push(self.array_mut(&[self.workspace], "platforms")?, Value::InlineTable(row));
                own
            }
        };
        if self.platform_of("gpu", &name)? {
            self.changes.push(Change::CudaPlatform { name, subdir: subdir.to_owned(), cuda });
        }
        Ok(())
    }

    /// Sets the CUDA version of the platforms that the gpu feature is limited to.
    fn set_cuda(&mut self, wanted: &str) -> Result<(), Stop> {
        let named = self.strings(&GPU, "platforms")?;
        let rows = self.rows()?;
        for (index, row) in rows.iter().enumerate().filter(|(_, row)| row.is_called(&named)) {
            let (Some(name), Some(old)) = (&row.name, row.cuda.as_ref().filter(|old| *old != wanted)) else { continue };
            let same = |other: &Row| other.subdir == row.subdir && other.cuda.as_deref() == Some(wanted) && !other.more;
            if !row.more && rows.iter().any(same) {
                return Err(self.refused_row(index, format!("would be the same as another one with CUDA {wanted}")));
            }
            let table = self.array_mut(&[self.workspace], "platforms")?.get_mut(index);
            let Some(table) = table.and_then(Value::as_inline_table_mut) else { continue };
            let has_name = table.contains_key("name");
            match table.get_mut("cuda") {
                Some(Value::InlineTable(both)) => {
                    if let Some(driver) = both.get_mut("driver") {
                        replace(driver, wanted.into());
                    }
                }
                Some(version) => replace(version, wanted.into()),
                None => {}
            }
            if !has_name {
                self.rename_platform(name, &derived_name(&row.subdir, wanted))?;
            }
            let (name, old) = (name.clone(), old.clone());
            self.changes.push(Change::CudaOfPlatform { name, old, new: wanted.to_owned() });
        }
        Ok(())
    }

    /// Follows a platform that pixi calls otherwise now, in all features that are limited to it.
    fn rename_platform(&mut self, old: &str, new: &str) -> Result<(), Stop> {
        for feature in self.keys(&["feature"])? {
            let path = ["feature", feature.as_str()];
            if self.array(&path, "platforms")?.is_some() {
                let names = self.array_mut(&path, "platforms")?.iter_mut();
                names.filter(|name| name.as_str() == Some(old)).for_each(|name| replace(name, new.into()));
            }
        }
        let reason = "names a platform without a `name`, and pixi calls that by its CUDA version: give it one";
        self.refuse_mention(&[old.to_owned()], reason)
    }

    fn cuda_is_there(&mut self, wanted: Option<&str>) {
        self.notes.extend(wanted.map(|wanted| format!("The gpu feature asks for CUDA {wanted} already.")));
    }

    fn refused_row(&self, index: usize, reason: String) -> Stop {
        Stop::refused(&[self.workspace, "platforms", &format!("[{index}]")], reason)
    }
}

/// From one style to the other.
impl Manifest {
    /// Takes the system requirements out, for platforms that carry the CUDA version.
    pub fn leave_legacy(&mut self) -> Result<Moved, Stop> {
        let cuda = self.string(&REQUIREMENTS, "cuda")?.map(str::to_owned);
        self.take(&REQUIREMENTS, "cuda");
        // One specification for both platforms goes where it holds for all; two stay where they are.
        let at = |platform| ["feature", "gpu", "target", platform, "dependencies"];
        let mut found = Vec::new();
        for platform in pins::CUDA_PLATFORMS {
            found.extend(self.value(&at(platform), "pytorch-gpu")?.and_then(Item::as_value).cloned());
        }
        let text = |value: &Value| value.clone().decorated("", "").to_string();
        let alike = found.windows(2).all(|pair| text(&pair[0]) == text(&pair[1]));
        let general = self.value(&["feature", "gpu", "dependencies"], "pytorch-gpu")?.is_some();
        let specification = found.pop().filter(|_| alike && !general).map(|value| value.decorated(" ", ""));
        if specification.is_some() {
            for platform in pins::CUDA_PLATFORMS {
                self.take(&at(platform), "pytorch-gpu");
            }
        }
        if self.array(&GPU, "platforms")?.is_some() {
            // The platforms with CUDA stand in for these.
            let platforms = self.array_mut(&GPU, "platforms")?;
            retain(platforms, |value| !value.as_str().is_some_and(|name| pins::CUDA_PLATFORMS.contains(&name)));
            tidy_first(platforms);
        }
        if cuda.is_some() || specification.is_some() {
            self.changes.push(Change::Style(PlatformStyle::Rich));
        }
        Ok(Moved { cuda, specification })
    }

    /// Takes the platforms with CUDA out, for system requirements.
    pub fn leave_rich(&mut self) -> Result<Moved, Stop> {
        let named = self.strings(&GPU, "platforms")?;
        let rows = self.rows()?;
        let mut cuda: Option<String> = None;
        let mut names = Vec::new();
        for (index, row) in rows.iter().enumerate().filter(|(_, row)| !row.is_plain()) {
            let (Some(name), Some(version)) = (&row.name, row.cuda.as_ref().filter(|_| !row.more)) else {
                return Err(self.refused_row(index, "promises what the legacy style has no place for".to_owned()));
            };
            let is_ours = named.contains(name) || *name == rich_name(&row.subdir);
            if !is_ours || cuda.as_ref().is_some_and(|cuda| cuda != version) {
                let reason =
                    "differs from the gpu feature's other platforms, and the legacy style has one CUDA version";
                return Err(self.refused_row(index, reason.to_owned()));
            }
            cuda = Some(version.clone());
            names.push(name.clone());
        }
        let subdir =
            |name: &String| rows.iter().find(|row| row.name.as_ref() == Some(name)).map(|row| row.subdir.clone());
        let subdirs: Vec<String> = named.iter().map(|name| subdir(name).unwrap_or_else(|| name.clone())).collect();
        let platforms = self.array_mut(&[self.workspace], "platforms")?;
        retain(platforms, |value| !Row::read(value).is_some_and(|row| row.is_called(&names)));
        tidy_first(platforms);
        self.limit_to_subdirs("gpu", &subdirs, &pins::CUDA_PLATFORMS.map(str::to_owned))?;
        let plain: Vec<String> = rows.iter().filter(|row| row.is_plain()).map(|row| row.subdir.clone()).collect();
        let cpu = self.strings(&["feature", "cpu"], "platforms")?;
        self.limit_to_subdirs("cpu", &cpu, &plain)?;
        self.refuse_mention(&names, "names a platform that the legacy style does not have")?;
        let specification = self.take(&["feature", "gpu", "dependencies"], "pytorch-gpu");
        let specification = specification.and_then(|item| item.into_value().ok()).map(|value| value.decorated(" ", ""));
        self.changes.push(Change::Style(PlatformStyle::Legacy));
        Ok(Moved { cuda, specification })
    }

    /// A feature's platforms under their conda names; no limit where it says what goes without saying.
    fn limit_to_subdirs(&mut self, feature: &str, subdirs: &[String], usual: &[String]) -> Result<(), Stop> {
        let path = ["feature", feature];
        if subdirs.iter().all(|subdir| usual.contains(subdir)) && usual.iter().all(|subdir| subdirs.contains(subdir)) {
            self.take(&path, "platforms");
            return Ok(());
        }
        if !subdirs.is_empty() {
            for (value, subdir) in self.array_mut(&path, "platforms")?.iter_mut().zip(subdirs) {
                replace(value, subdir.as_str().into());
            }
        }
        Ok(())
    }

    /// pixi takes no system requirements beside platforms that promise something themselves.
    fn refuse_requirements(&self) -> Result<(), Stop> {
        let key = "system-requirements";
        let features = self.keys(&["feature"])?;
        let paths = features.iter().map(|feature| vec!["feature", feature, key]).chain([vec![key]]);
        for path in paths {
            if self.look(&path)?.is_some_and(|table| !table.is_empty()) {
                let reason = "cannot stand beside platforms that say more than a conda platform: write it into them";
                return Err(Stop::refused(&path, reason.to_owned()));
            }
        }
        Ok(())
    }

    /// Refuses a name that stands anywhere but among the platforms of the workspace.
    fn refuse_mention(&self, names: &[String], reason: &str) -> Result<(), Stop> {
        let mut path = Vec::new();
        if !mention(self.root(), names, &[self.workspace, "platforms"], &mut path) {
            return Ok(());
        }
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        Err(Stop::refused(&path, reason.to_owned()))
    }
}

/// Leads `path` to the first key or array that has one of the names, but for the one at `skip`.
fn mention(table: &dyn TableLike, names: &[String], skip: &[&str], path: &mut Vec<String>) -> bool {
    let is_name = |text: &str| names.iter().any(|name| name == text);
    for (key, item) in table.iter() {
        path.push(key.to_owned());
        let skipped = skip.iter().eq(path.iter());
        let mut values = item.as_array().into_iter().flatten();
        let listed = values.any(|value| value.as_str().is_some_and(is_name));
        let below = item.as_table_like();
        if !skipped && (listed || is_name(key) || below.is_some_and(|below| mention(below, names, skip, path))) {
            return true;
        }
        path.pop();
    }
    false
}
