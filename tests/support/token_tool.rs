//! Makes tokens and objects for tests, as a helper in a process of its own: no test loads a PKCS#11
//! module. It works on the module that it is given, reads lines from stdin and does each in turn:
//!
//! ```text
//! init LABEL PIN                       a new token in the first empty slot
//! blank LABEL PIN                      the same without a user PIN; PIN is its SO's
//! user-pin LABEL PIN                   give the same PIN to the user of a blank token
//! login LABEL PIN                      work on this token from now on
//! generic LABEL ID-HEX VALUE-HEX       import a generic secret that signs
//! nosign LABEL ID-HEX VALUE-HEX        the same without CKA_SIGN
//! aes LABEL ID-HEX VALUE-HEX           import an AES key
//! rsa LABEL ID-HEX                     generate an RSA key pair
//! destroy LABEL                        destroy every object of that label
//! pin OLD NEW                          change the user PIN
//! objects                              print each token object: LABEL ID-HEX
//! ```

use std::{
    error::Error,
    io::{self, BufRead as _, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    mechanism::Mechanism,
    object::{Attribute, AttributeType, KeyType, ObjectClass},
    session::{Session, UserType},
};
use secrecy::SecretString;

use super::helper::{helper, is_ready, ready};

/// Runs lines of the tool over a module and gives what it printed.
pub fn script(module: &Path, softhsm_conf: &Path, lines: &str) -> String {
    let helper = helper(
        "support::token_tool::tokens_are_made_in_another_process",
        module,
    );
    let (name, value) = helper.variable;
    let mut child = Command::new(helper.program)
        .args(helper.arguments)
        .env(name, value)
        .env("SOFTHSM2_CONF", softhsm_conf)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let stdout = String::from_utf8_lossy(&output.stdout);
    let printed = stdout.lines().skip_while(|line| !is_ready(line)).skip(1);
    printed.flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn tokens_are_made_in_another_process() {
    let Some(module) = ready() else {
        let token = super::Token::with_key();
        assert_eq!(token.objects(), ["mac 01"]);
        return;
    };
    let Err(error) = serve(Path::new(&module)) else {
        // libtest's own last words are no output of the tool.
        std::process::exit(0);
    };
    panic!("{error}");
}

fn serve(module: &Path) -> Result<(), Box<dyn Error>> {
    let pkcs11 = Pkcs11::new(module)?;
    pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
    let mut session = None;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        run(&pkcs11, &mut session, &words).map_err(|error| format!("{}: {error}", words[0]))?;
    }
    Ok(())
}

fn run(
    pkcs11: &Pkcs11,
    session: &mut Option<Session>,
    words: &[&str],
) -> Result<(), Box<dyn Error>> {
    match *words {
        ["init", label, pin] => {
            *session = None;
            blank(pkcs11, label, pin)?;
            return give_user_pin(pkcs11, label, pin);
        }
        ["blank", label, pin] => return blank(pkcs11, label, pin),
        ["user-pin", label, pin] => return give_user_pin(pkcs11, label, pin),
        ["login", label, pin] => {
            *session = None;
            *session = Some(log_in(pkcs11, label, pin)?);
            return Ok(());
        }
        _ => {}
    }
    let session = session.as_ref().ok_or("log in first")?;
    match *words {
        ["generic", label, id, value] => {
            import(session, KeyType::GENERIC_SECRET, label, id, value, true)
        }
        ["nosign", label, id, value] => {
            import(session, KeyType::GENERIC_SECRET, label, id, value, false)
        }
        ["aes", label, id, value] => import(session, KeyType::AES, label, id, value, true),
        ["rsa", label, id] => {
            let name = [
                Attribute::Label(label.into()),
                Attribute::Id(bytes(id)?),
                Attribute::Token(true),
            ];
            let mut public = name.to_vec();
            public.push(Attribute::ModulusBits(2048.into()));
            session.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &name)?;
            Ok(())
        }
        ["destroy", label] => {
            for object in session.find_objects(&[Attribute::Label(label.into())])? {
                session.destroy_object(object)?;
            }
            Ok(())
        }
        ["objects"] => {
            for object in session.find_objects(&[Attribute::Token(true)])? {
                let wanted = [AttributeType::Label, AttributeType::Id];
                // Somebody may have destroyed it since the search.
                let Ok(named) = session.get_attributes(object, &wanted) else {
                    continue;
                };
                let [Attribute::Label(label), Attribute::Id(id)] = &named[..] else {
                    return Err("an object without label and CKA_ID".into());
                };
                let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
                println!("{} {id}", String::from_utf8_lossy(label));
            }
            Ok(())
        }
        ["pin", old, new] => Ok(session.set_pin(&secret(old), &secret(new))?),
        _ => Err("no such instruction".into()),
    }
}

fn blank(pkcs11: &Pkcs11, label: &str, pin: &str) -> Result<(), Box<dyn Error>> {
    let mut slots = pkcs11.get_slots_with_token()?;
    slots.retain(|slot| {
        pkcs11
            .get_token_info(*slot)
            .is_ok_and(|info| !info.token_initialized())
    });
    let slot = *slots.first().ok_or("no empty token")?;
    Ok(pkcs11.init_token(slot, &secret(pin), label)?)
}

fn give_user_pin(pkcs11: &Pkcs11, label: &str, pin: &str) -> Result<(), Box<dyn Error>> {
    for slot in pkcs11.get_slots_with_token()? {
        let info = pkcs11.get_token_info(slot)?;
        if info.label() == label && !info.user_pin_initialized() {
            let session = pkcs11.open_rw_session(slot)?;
            session.login(UserType::So, Some(&secret(pin)))?;
            session.init_pin(&secret(pin))?;
            return Ok(session.logout()?);
        }
    }
    Err(format!("no token {label} without a user PIN").into())
}

fn log_in(pkcs11: &Pkcs11, label: &str, pin: &str) -> Result<Session, Box<dyn Error>> {
    for slot in pkcs11.get_slots_with_token()? {
        if pkcs11.get_token_info(slot)?.label() == label {
            let session = pkcs11.open_rw_session(slot)?;
            session.login(UserType::User, Some(&secret(pin)))?;
            return Ok(session);
        }
    }
    Err(format!("no token {label}").into())
}

fn import(
    session: &Session,
    key_type: KeyType,
    label: &str,
    id: &str,
    value: &str,
    sign: bool,
) -> Result<(), Box<dyn Error>> {
    session.create_object(&[
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(key_type),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(sign),
        Attribute::Label(label.into()),
        Attribute::Id(bytes(id)?),
        Attribute::Value(bytes(value)?),
    ])?;
    Ok(())
}

fn secret(pin: &str) -> SecretString {
    SecretString::from(pin)
}

fn bytes(hex: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    (0..hex.len())
        .step_by(2)
        .map(|at| {
            Ok(u8::from_str_radix(
                hex.get(at..at + 2).ok_or("odd hex")?,
                16,
            )?)
        })
        .collect()
}
