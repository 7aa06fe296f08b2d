//! TLS of a listener, from files in PEM form.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The files of a TLS listener, in PEM form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate and those of its issuers.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl Tls {
    /// Reads the certificate and the key.
    ///
    /// # Errors
    ///
    /// The file and what is wrong with it.
    pub fn acceptor(&self) -> Result<TlsAcceptor, String> {
        let place = self.certificate.display();
        let certificates =
            CertificateDer::pem_file_iter(&self.certificate).map_err(|error| format!("{place}: {error}"))?;
        let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(|error| format!("{place}: {error}"))?;
        if certificates.is_empty() {
            return Err(format!("{place} holds no certificate in PEM form"));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key);
        let key = key.map_err(|error| format!("{}: {error}", self.key.display()))?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .map_err(|error| error.to_string())?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
