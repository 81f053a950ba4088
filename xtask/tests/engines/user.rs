//! Ordinary users. Tests that run as root make their own; everybody else is one already.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;

use super::command::{command, read, run, wrap};

/// Somebody without privileges, with a home directory of their own.
pub struct User {
    name: Option<String>,
    pub id: u32,
    pub home: PathBuf,
}

/// Whether these tests run as root, as they do in CI.
pub fn is_root() -> anyhow::Result<bool> {
    Ok(own_id()? == 0)
}

fn own_id() -> anyhow::Result<u32> {
    read(command!("id", "-u"))?.trim().parse().context("read the output of `id -u`")
}

impl User {
    /// A new user whose home is `home`, which is made; without root, the present user with another home.
    pub fn create(name: &str, home: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir(&home).with_context(|| format!("make {}", home.display()))?;
        if !is_root()? {
            return Ok(Self { name: None, id: own_id()?, home });
        }
        // A run that was killed may have left its users behind.
        run(command!("userdel", name))?;
        read(command!("useradd", "--no-create-home", "--home-dir", &home, "--shell", "/bin/sh", "--user-group", name))?;
        let id = read(command!("id", "-u", name))?.trim().parse().context("read the output of `id -u`")?;
        let user = Self { name: Some(name.to_owned()), id, home };
        user.own(&user.home)?;
        Ok(user)
    }

    /// Hands `path` and everything below it over.
    pub fn own(&self, path: &std::path::Path) -> anyhow::Result<()> {
        if self.name.is_some() {
            read(command!("chown", "--recursive", format!("{0}:{0}", self.id), path))?;
        }
        Ok(())
    }

    /// `command`, started by this user.
    pub fn command(&self, command: &Command) -> Command {
        match self.name {
            Some(_) => wrap(self.setpriv(), command),
            None => wrap(command!("env"), command),
        }
    }

    /// `command`, started by this user where there is no network, not even loopback.
    pub fn offline(&self, command: &Command) -> Command {
        let unshare = match self.name {
            // Root enters the namespace first and drops its rights inside.
            Some(_) => wrap(command!("unshare", "--net", "--"), &self.setpriv()),
            None => command!("unshare", "--user", "--map-current-user", "--net", "--"),
        };
        wrap(unshare, command)
    }

    fn setpriv(&self) -> Command {
        let id = self.id.to_string();
        command!("setpriv", "--reuid", &id, "--regid", &id, "--clear-groups")
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // What cannot be removed now is removed by the next run.
            let _ = run(command!("userdel", name));
        }
    }
}
