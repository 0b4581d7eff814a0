//! TLS: our own trust anchors, provider and client certificate, whatever else the process has set up.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::options::{Options, OptionsError};

/// Reads the certificates anew each time it is called, so that renewed ones count from the next connection on.
pub fn client_config(options: &Options) -> Result<ClientConfig, OptionsError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &options.ca_file {
        for certificate in certificates("ca-file", path)? {
            roots.add(certificate).map_err(|error| file_error("ca-file", path, error))?;
        }
    } else {
        // Some of a system's certificates may be unreadable; what is left decides.
        let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if added == 0 {
            return Err(OptionsError::Tls(
                "this system has no certificate authorities: install ca-certificates or set `ca-file`".into(),
            ));
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| OptionsError::Tls(error.to_string()))?
        .with_root_certificates(roots);
    let config = match (&options.cert_file, &options.key_file) {
        (Some(cert), Some(key)) => {
            let chain = certificates("cert-file", cert)?;
            let private =
                PrivateKeyDer::from_pem_file(key).map_err(|error| file_error("key-file", key, error))?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|error| file_error("cert-file", cert, error))?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(OptionsError::Tls("`cert-file` and `key-file` go together: set both".into())),
    };
    Ok(config)
}

fn certificates(property: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, OptionsError> {
    let list = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| file_error(property, path, error))?;
    if list.is_empty() {
        return Err(file_error(property, path, "holds no PEM certificate"));
    }
    Ok(list)
}

fn file_error(property: &'static str, path: &Path, why: impl std::fmt::Display) -> OptionsError {
    OptionsError::File { property, path: path.display().to_string(), why: why.to_string() }
}
