//! Files with certificates or keys, as they are.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Why there is no content.
#[derive(Debug, thiserror::Error)]
pub enum PemFileError {
    /// A file cannot be read.
    #[error("cannot read {path}: use an existing, readable PEM file")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is far too large.
    #[error("{path} is larger than {mib_max} MiB: not a certificate file")]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// The maximum.
        mib_max: u64,
    },
}

/// What is in a file of at most so many MiB.
///
/// # Errors
/// Where it cannot be read, or is larger.
pub fn read_pem_file(path: &Path, mib_max: u64) -> Result<Vec<u8>, PemFileError> {
    let error = |source| PemFileError::Read {
        path: path.to_owned(),
        source,
    };
    if fs::metadata(path).map_err(error)?.len() > mib_max << 20 {
        return Err(PemFileError::TooLarge {
            path: path.to_owned(),
            mib_max,
        });
    }
    fs::read(path).map_err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cert.pem");
        let file = fs::File::create(&path).unwrap();
        file.set_len(1 << 20).unwrap();
        assert_eq!(read_pem_file(&path, 1).unwrap().len(), 1 << 20);
        file.set_len((1 << 20) + 1).unwrap();
        let error = read_pem_file(&path, 1).unwrap_err().to_string();
        assert!(error.ends_with("is larger than 1 MiB: not a certificate file"));
        let missing = read_pem_file(&dir.path().join("other"), 1);
        assert!(matches!(missing, Err(PemFileError::Read { .. })));
    }
}
