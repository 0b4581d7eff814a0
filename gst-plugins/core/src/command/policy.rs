//! What an instance lets others tell it.

use super::{COMMANDS, Command, Params, Scalar};

/// Schemes of camera addresses that commands may name.
pub const DEFAULT_SCHEMES: &str = "rtsp,rtsps,http,https";

/// Which commands are carried out, and which addresses they may hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Empty: all.
    commands: Vec<String>,
    schemes: Vec<String>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { commands: Vec::new(), schemes: list(DEFAULT_SCHEMES) }
    }
}

impl Policy {
    /// From lists separated by commas. `commands`: empty or `all` for all of them.
    ///
    /// # Errors
    /// Names what is no command.
    pub fn new(commands: &str, schemes: &str) -> Result<Self, String> {
        let commands = if commands.trim() == "all" { Vec::new() } else { list(commands) };
        if let Some(wrong) = commands.iter().find(|name| !COMMANDS.iter().any(|known| known.name == *name)) {
            let names: Vec<_> = COMMANDS.iter().map(|known| known.name).collect();
            return Err(format!("there is no command {wrong:?}; there are {}", names.join(", ")));
        }
        Ok(Self { commands, schemes: list(schemes) })
    }

    /// Whether `command` may be carried out.
    ///
    /// # Errors
    /// Why not. Addresses are not quoted: they may hold passwords.
    pub fn check(&self, command: &Command) -> Result<(), String> {
        if !self.commands.is_empty() && !self.commands.iter().any(|name| name == command.name()) {
            return Err(format!(
                "{} is not enabled here; enabled are {}",
                command.name(),
                self.commands.join(", ")
            ));
        }
        match command {
            Command::AddStream { uri, params, .. } => {
                uri.iter().try_for_each(|uri| self.check_uri("uri", uri))?;
                self.check_params(params)
            }
            Command::ChangeStreamUri { uri, .. } => self.check_uri("uri", uri),
            Command::Set { params, .. } | Command::Reconfigure { params, .. } => self.check_params(params),
            Command::Batch { commands } => commands.iter().enumerate().try_for_each(|(index, command)| {
                self.check(command).map_err(|error| {
                    format!("command {} of the batch ({}): {error}", index + 1, command.name())
                })
            }),
            _ => Ok(()),
        }
    }

    fn check_params(&self, params: &Params) -> Result<(), String> {
        params.iter().try_for_each(|(name, value)| match value {
            Scalar::Text(text) if name == "model" => super::read::check_model(text),
            Scalar::Text(text) if is_address(name, text) => self.check_uri(name, text),
            _ => Ok(()),
        })
    }

    fn check_uri(&self, name: &str, uri: &str) -> Result<(), String> {
        let allowed = self.schemes.join(", ");
        let url = url::Url::parse(uri)
            .map_err(|_| format!("{name} must be an address with one of the schemes {allowed}"))?;
        if self.schemes.iter().any(|scheme| scheme == url.scheme()) {
            Ok(())
        } else {
            Err(format!("{name} has the scheme {:?}; commands may use {allowed}", url.scheme()))
        }
    }
}

/// Whether a value is an address, by its parameter's name or by its look.
fn is_address(name: &str, text: &str) -> bool {
    name == "uri" || name.ends_with("_uri") || url::Url::parse(text.trim_start()).is_ok()
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_ascii_lowercase).collect()
}
