//! The key to a bucket, from a file or from the environment. It is in no property, log or message.

use std::env;
use std::fs;
use std::path::Path;

use rusty_s3::Credentials;

/// Files that are larger are something else.
const MOST: u64 = 64 << 10;

#[derive(Debug)]
pub struct Secrets {
    pub key: Credentials,
    /// Where the store cares, and its host name does not say it.
    pub region: Option<String>,
}

impl Secrets {
    /// From `file`, else from the environment. An error says what is missing, and nothing of what is there.
    pub fn read(file: Option<&Path>) -> Result<Self, String> {
        let Some(file) = file else {
            let key = Credentials::from_env().ok_or(
                "there is no key to the bucket: set `s3-credentials`, or AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY in the environment",
            )?;
            let var = |name| env::var(name).ok().filter(|value| !value.is_empty());
            return Ok(Self { key, region: var("AWS_REGION").or_else(|| var("AWS_DEFAULT_REGION")) });
        };
        let problem = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
        if fs::metadata(file).map_err(|error| problem(&error))?.len() > MOST {
            return Err(problem(&"too large for a file with a key"));
        }
        let text = fs::read_to_string(file).map_err(|error| problem(&error))?;
        Self::parse(&text).map_err(|name| problem(&format!("a line \"{name} = …\" is missing")))
    }

    /// Reads `name = value` lines, of the first section as the tools of AWS write them, or as an environment file. An
    /// error is the name of what is missing.
    fn parse(text: &str) -> Result<Self, &'static str> {
        let mut sections = 0;
        let lines = text.lines().map(str::trim).take_while(|line| {
            sections += u8::from(line.starts_with('[') && sections < 2);
            sections < 2
        });
        let pairs: Vec<_> = lines
            .filter(|line| !line.starts_with(['#', ';']))
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"')))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        let get = |name: &'static str| {
            let found = pairs.iter().find(|(known, _)| known.trim_start_matches("export ").trim() == name);
            found.map(|(_, value)| *value).ok_or(name)
        };
        let (id, secret) = (get("aws_access_key_id")?, get("aws_secret_access_key")?);
        let key = match get("aws_session_token") {
            Ok(token) => Credentials::new_with_token(id, secret, token),
            Err(_) => Credentials::new(id, secret),
        };
        let region = get("region").or_else(|_| get("aws_region")).ok().map(str::to_owned);
        Ok(Self { key, region })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_tools_and_of_the_environment_are_read() {
        for text in [
            "[default]\naws_access_key_id = id\naws_secret_access_key = se=cret\nregion = r\n[other]\nregion = x",
            "# comment\nAWS_ACCESS_KEY_ID=id\nAWS_SECRET_ACCESS_KEY=\"se=cret\"\nAWS_REGION=r\n",
            "export AWS_ACCESS_KEY_ID=id\nexport AWS_SECRET_ACCESS_KEY=se=cret\nexport AWS_REGION=r",
        ] {
            let read = Secrets::parse(text).unwrap();
            assert_eq!((read.key.key(), read.key.secret()), ("id", "se=cret"));
            assert_eq!((read.region.as_deref(), read.key.token()), (Some("r"), None));
            assert!(!format!("{read:?}").contains("se=cret"));
        }
        let with_token = "aws_access_key_id=a\naws_secret_access_key=b\naws_session_token=c";
        assert_eq!(Secrets::parse(with_token).unwrap().key.token(), Some("c"));
        assert_eq!(Secrets::parse("aws_access_key_id = id").unwrap_err(), "aws_secret_access_key");
        assert_eq!(Secrets::parse("").unwrap_err(), "aws_access_key_id");
    }

    #[test]
    fn a_problem_names_the_file_and_nothing_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        assert!(Secrets::read(Some(&file)).unwrap_err().contains("key"));
        fs::write(&file, "aws_access_key_id = geheim").unwrap();
        let error = Secrets::read(Some(&file)).unwrap_err();
        assert!(error.contains("aws_secret_access_key") && !error.contains("geheim"), "{error}");
    }
}
