//! Files with secrets: the private keys of TLS, secret access keys, PINs. They must be readable, and by
//! nobody else.

use std::{
    env,
    fs::{self, File, Metadata},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use super::{
    Settings,
    fault::ConfigWarning,
    files::{ReadFiles, said},
};

impl Settings {
    /// Whether the secret in a file may be used.
    pub(super) fn check_secret_file(
        &self,
        setting: &str,
        file: &Path,
        holds: &str,
        read: &mut ReadFiles,
    ) -> bool {
        let fault = match find_exposure(file, holds) {
            Ok(None) => return true,
            Ok(Some(exposed)) if self.allow_readable_secrets => {
                let warning = self.origins.fault(setting, exposed);
                read.warnings.push(ConfigWarning(warning));
                return true;
            }
            Ok(Some(exposed)) => format!("{exposed}; or set allow_readable_secrets = true"),
            Err(unusable) => unusable,
        };
        read.faults.push(self.origins.fault(setting, fault));
        false
    }
}

/// Whom a file with a secret lets in besides hsmac, and the way out.
///
/// # Errors
/// Why hsmac cannot read it itself.
fn find_exposure(file: &Path, holds: &str) -> Result<Option<String>, String> {
    let shown = file.display();
    let unreadable = |error| format!("{shown}: {}", said(&error));
    // Its metadata first: to open a FIFO would wait for a writer.
    let found = fs::metadata(file).map_err(unreadable)?;
    if !found.is_file() {
        return Err(format!("{shown} is not a regular file"));
    }
    File::open(file).map_err(unreadable)?;
    // systemd's credentials show their ACL's mask as the group's bits; the folder is what keeps
    // others out.
    let credentials = env::var_os("CREDENTIALS_DIRECTORY");
    if credentials.is_some_and(|folder| file.starts_with(folder)) {
        return Ok(None);
    }
    let own = rustix::process::geteuid().as_raw();
    let mode = found.mode() & 0o7777;
    Ok((exposed_bits(&found, own) != 0).then(|| {
        format!(
            "{shown} has mode {mode:04o}: others than its owner can read or write {holds}; run \
             chmod 0400 {shown}"
        )
    }))
}

/// The bits of a file's mode that let in somebody besides hsmac, which runs as the user `own`.
///
/// Security: a group may read the file of another owner, since that is then how hsmac itself comes to
/// it: `root:hsmac` with 0440, or Kubernetes' fsGroup. Root needs no group for that.
fn exposed_bits(found: &Metadata, own: u32) -> u32 {
    let comes_by_group = own != 0 && found.uid() != own;
    found.mode() & if comes_by_group { 0o026 } else { 0o066 }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_group_may_read_the_file_of_another_owner_and_nobody_else_may() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let owner = file.as_file().metadata().unwrap().uid();
        let own_or_root = [owner, 0];
        let another = owner + 1;
        for (mode, to_owner, to_another) in [
            (0o400, true, true),
            (0o600, true, true),
            (0o700, true, true),
            (0o440, false, true),
            (0o640, false, true),
            (0o660, false, false),
            (0o620, false, false),
            (0o604, false, false),
            (0o602, false, false),
            (0o644, false, false),
        ] {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
            let found = file.as_file().metadata().unwrap();
            for own in own_or_root {
                assert_eq!(exposed_bits(&found, own) == 0, to_owner, "{mode:o} {own}");
            }
            assert_eq!(exposed_bits(&found, another) == 0, to_another, "{mode:o}");
        }
    }
}
