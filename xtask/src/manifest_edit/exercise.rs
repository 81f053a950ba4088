//! What an edit does, step by step: the exercise of the lesson, and what was asked for beyond it.

use toml_edit::{Item, Value};

use super::change::{Change, Whole};
use super::manifest::{Manifest, push};
use super::platforms::Moved;
use super::request::{Dependency, Request};
use super::{PlatformStyle, Stop};
use crate::pins;

impl Manifest {
    /// All of it, in an order in which pixi takes the commands that do the same.
    pub fn finish(&mut self, request: &Request) -> Result<(), Stop> {
        for channel in &request.channels {
            self.channel(channel)?;
        }
        let present = self.style()?;
        let style = request.style.unwrap_or(present);
        let moved = match (present, style) {
            (PlatformStyle::Legacy, PlatformStyle::Rich) => self.leave_legacy()?,
            (PlatformStyle::Rich, PlatformStyle::Legacy) => self.leave_rich()?,
            _ => Moved::default(),
        };
        let restyled = self.changes.iter().any(|change| matches!(change, Change::Style(_)));
        self.platforms(request, style, restyled)?;
        self.default_dependency(&["feature", "cpu", "dependencies"], "pytorch-cpu", None)?;
        let wanted = request.cuda.as_deref();
        self.part_of_style(restyled, |manifest| {
            manifest.cuda(style, wanted.filter(|_| !restyled), moved.cuda)?;
            manifest.gpu_dependencies(style, moved.specification)
        })?;
        if restyled && wanted.is_some() {
            self.cuda(style, wanted, None)?;
        }
        for (index, dependency) in request.dependencies.iter().enumerate() {
            // Of two that differ in the version the last one holds, as for `pixi add`.
            if request.dependencies[index + 1..].iter().all(|later| later.name != dependency.name) {
                self.dependency(request.feature.as_deref(), dependency)?;
            }
        }
        for name in ["cpu", "gpu"] {
            self.environment(name)?;
        }
        self.note_unused(request)
    }

    /// Does work that, in a manifest of another style than before, only writes what was there in another way: it is no
    /// change of its own then.
    fn part_of_style(&mut self, restyled: bool, work: impl FnOnce(&mut Self) -> Result<(), Stop>) -> Result<(), Stop> {
        let before = self.changes.len();
        work(self)?;
        if restyled {
            self.changes.truncate(before);
        }
        Ok(())
    }

    fn platforms(&mut self, request: &Request, style: PlatformStyle, restyled: bool) -> Result<(), Stop> {
        let before = self.changes.len();
        for platform in pins::PLATFORMS.into_iter().chain(request.platforms.iter().map(String::as_str)) {
            self.platform(platform)?;
        }
        if style == PlatformStyle::Rich {
            self.part_of_style(restyled, |manifest| manifest.limit_cpu(&request.platforms))?;
        }
        let is_new = |subdir: &String| self.changes[before..].iter().any(|change| change.adds_platform(subdir));
        let present = request.platforms.iter().filter(|subdir| !is_new(subdir));
        let notes: Vec<_> = present.map(|subdir| format!("The platform {subdir} is there already.")).collect();
        self.notes.extend(notes);
        Ok(())
    }

    fn cuda(&mut self, style: PlatformStyle, wanted: Option<&str>, moved: Option<String>) -> Result<(), Stop> {
        match style {
            PlatformStyle::Legacy => self.cuda_requirement(wanted, moved),
            PlatformStyle::Rich => self.cuda_platforms(wanted, moved),
        }
    }

    fn gpu_dependencies(&mut self, style: PlatformStyle, moved: Option<Value>) -> Result<(), Stop> {
        let general = ["feature", "gpu", "dependencies"];
        let targets = pins::CUDA_PLATFORMS.map(|platform| ["feature", "gpu", "target", platform, "dependencies"]);
        if self.key_of(&general, "pytorch-gpu")?.is_some() {
            return Ok(());
        }
        if style == PlatformStyle::Legacy {
            return targets.iter().try_for_each(|path| self.default_dependency(path, "pytorch-gpu", moved.as_ref()));
        }
        for path in &targets {
            if self.key_of(path, "pytorch-gpu")?.is_some() {
                return Ok(());
            }
        }
        self.default_dependency(&general, "pytorch-gpu", moved.as_ref())
    }

    /// Adds a package in any version, or as it stood elsewhere, unless it is there.
    fn default_dependency(&mut self, path: &[&str], name: &str, moved: Option<&Value>) -> Result<(), Stop> {
        if self.key_of(path, name)?.is_some() {
            return Ok(());
        }
        let dependency = Dependency { name: name.to_owned(), version: "*".to_owned() };
        self.set(path, name, moved.cloned().unwrap_or_else(|| dependency.version.as_str().into()))?;
        self.changes.push(Change::dependency(path, dependency, None));
        Ok(())
    }

    /// Adds a channel behind the others, unless it is there.
    fn channel(&mut self, channel: &str) -> Result<(), Stop> {
        if self.channels()?.iter().any(|present| present == channel) {
            self.notes.push(format!("The channel {channel} is there already."));
            return Ok(());
        }
        push(self.array_mut(&[self.workspace], "channels")?, channel.into());
        self.changes.push(Change::Channel(channel.to_owned()));
        Ok(())
    }

    /// The workspace's channels, without a slash at their end.
    fn channels(&self) -> Result<Vec<String>, Stop> {
        let name = |(index, value): (usize, &Value)| {
            let place = format!("[{index}]");
            let wrong = || Stop::shape(&[self.workspace, "channels", &place], "a channel", value.type_name());
            let named = value.as_inline_table().map_or(Some(value), |table| table.get("channel"));
            let name = named.and_then(Value::as_str).ok_or_else(wrong)?;
            Ok(name.trim_end_matches('/').to_owned())
        };
        self.array(&[self.workspace], "channels")?.into_iter().flatten().enumerate().map(name).collect()
    }

    /// Adds a dependency as `pixi add` does: another version replaces the one that is there, any version does not. What
    /// a feature has for some platforms only is changed there.
    fn dependency(&mut self, feature: Option<&str>, dependency: &Dependency) -> Result<(), Stop> {
        let owner = feature.map(|feature| vec!["feature", feature]).unwrap_or_default();
        let general = [owner.as_slice(), &["dependencies"]].concat();
        let targets = if self.key_of(&general, &dependency.name)?.is_some() {
            Vec::new()
        } else {
            self.targets_with(&owner, &dependency.name)?
        };
        if targets.is_empty() {
            return self.dependency_at(&general, dependency);
        }
        for target in &targets {
            self.dependency_at(&[owner.as_slice(), &["target", target, "dependencies"]].concat(), dependency)?;
        }
        Ok(())
    }

    /// The platforms for which a package is there, if `pixi add --platform` can name them all.
    fn targets_with(&self, owner: &[&str], name: &str) -> Result<Vec<String>, Stop> {
        let mut found = Vec::new();
        for target in self.keys(&[owner, &["target"]].concat())? {
            if self.key_of(&[owner, &["target", &target, "dependencies"]].concat(), name)?.is_some() {
                found.push(target);
            }
        }
        let rows = self.rows()?;
        let nameable = found.iter().all(|target| rows.iter().any(|row| row.is_named(target)));
        Ok(if nameable { found } else { Vec::new() })
    }

    fn dependency_at(&mut self, path: &[&str], dependency: &Dependency) -> Result<(), Stop> {
        let Dependency { name, version } = dependency;
        let key = self.key_of(path, name)?;
        let mut old = None;
        if let Some(key) = &key {
            let place = [path, &[key]].concat();
            let Some(item) = self.value(path, key)? else { return Ok(()) };
            let table = || Stop::shape(&place, "a version on one line", item.type_name());
            let text = item.as_value().ok_or_else(table)?.clone().decorated("", "").to_string();
            if text.contains('\n') || !(item.is_str() || item.is_inline_table()) {
                return Err(table());
            }
            let text = item.as_str().map_or(text, str::to_owned);
            let same = |text: &str| text.split_whitespace().collect::<String>() == *version;
            if version == "*" || same(&text) {
                self.notes.push(format!("{name} is in [{}] already: {text}.", path.join(".")));
                return Ok(());
            }
            old = Some(text);
        }
        self.set(path, key.as_deref().unwrap_or(name), version.as_str())?;
        self.changes.push(Change::dependency(path, dependency.clone(), old));
        Ok(())
    }

    /// The key of a package, which may be written with capitals.
    fn key_of(&self, path: &[&str], name: &str) -> Result<Option<String>, Stop> {
        Ok(self.keys(path)?.into_iter().find(|key| key.eq_ignore_ascii_case(name)))
    }

    /// `name = ["name"]` among the environments, in either of the two forms that pixi reads.
    fn environment(&mut self, name: &str) -> Result<(), Stop> {
        let present = self.value(&["environments"], name)?;
        let existed = present.is_some();
        let (path, key): (&[&str], _) = match present.is_some_and(Item::is_table_like) {
            true => (&["environments", name], "features"),
            false => (&["environments"], name),
        };
        if self.strings(path, key)?.iter().any(|feature| feature == name) {
            return Ok(());
        }
        push(self.array_mut(path, key)?, name.into());
        let whole = self.whole(path, key, existed)?;
        self.changes.push(Change::Environment { name: name.to_owned(), feature: name.to_owned(), whole });
        Ok(())
    }

    /// What `pixi workspace environment add` is told to make an environment; none if there is more to it.
    fn whole(&self, path: &[&str], key: &str, existed: bool) -> Result<Option<Whole>, Stop> {
        let features = self.strings(path, key)?;
        if key != "features" {
            return Ok(Some(Whole { features, solve_group: None, no_default_feature: false, existed }));
        }
        let solve_group = self.string(path, "solve-group")?.map(str::to_owned);
        let no_default = self.value(path, "no-default-feature")?.and_then(Item::as_bool);
        let no_default_feature = no_default.unwrap_or(false);
        let known = ["features", "solve-group", "no-default-feature"];
        let all_known = self.keys(path)?.iter().all(|key| known.contains(&key.as_str()));
        Ok(all_known.then_some(Whole { features, solve_group, no_default_feature, existed }))
    }

    /// A feature that no environment has is installed nowhere; pixi only warns of it too.
    fn note_unused(&mut self, request: &Request) -> Result<(), Stop> {
        let Some(feature) = request.feature.as_deref().filter(|_| !request.dependencies.is_empty()) else {
            return Ok(());
        };
        for environment in self.keys(&["environments"])? {
            let table = self.value(&["environments"], &environment)?.is_some_and(Item::is_table_like);
            let path: &[&str] = if table { &["environments", &environment] } else { &["environments"] };
            let key = if table { "features" } else { &environment };
            if self.strings(path, key)?.iter().any(|name| name == feature) {
                return Ok(());
            }
        }
        self.notes.push(format!("No environment has the feature {feature} yet, so nothing of it is installed."));
        Ok(())
    }
}

impl Change {
    /// A dependency in the table at `path`.
    fn dependency(path: &[&str], dependency: Dependency, old: Option<String>) -> Self {
        let behind = |key: &str| {
            let place = path.iter().position(|part| *part == key)?;
            path.get(place + 1).map(|name| (*name).to_owned())
        };
        let feature = if path.first() == Some(&"feature") { path.get(1).map(|name| (*name).to_owned()) } else { None };
        Self::Dependency { feature, platform: behind("target"), dependency, old }
    }
}
