//! A SoftHSM2 token of its own and a child process for each test, and PKCS#11 in few words.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a module of tests")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    ptr, thread,
    time::{Duration, Instant},
};

use cryptoki_sys::*;

pub const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
pub const PIN: &str = "73219846";
/// The time limit of everything that a test waits for: it ends a hang, it measures nothing.
pub const LIMIT: Duration = Duration::from_secs(30);
/// The module looks at its control file every millisecond.
const SEEN: Duration = Duration::from_millis(3);

/// The folder of one test, and which of its processes this is.
pub struct Test {
    dir: PathBuf,
    name: String,
    step: String,
}

/// Runs a test's body in a child process, since a process has one PKCS#11 module and one environment.
pub fn in_child(name: &str, body: impl FnOnce(&Test)) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let test = Test {
        dir,
        name: name.to_owned(),
        step: env::var("FAULT_TOKEN_TEST").unwrap_or_default(),
    };
    if !test.step.is_empty() {
        return body(&test);
    }
    let _ = fs::remove_dir_all(&test.dir);
    fs::create_dir_all(test.path("tokens")).unwrap();
    let tokens = test.path("tokens");
    let conf = format!(
        "directories.tokendir = {}\nlog.level = ERROR\n",
        tokens.display()
    );
    fs::write(test.path("softhsm2.conf"), conf).unwrap();
    let output = test.again("first");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    print!("{}", String::from_utf8_lossy(&output.stdout));
    fs::remove_dir_all(&test.dir).unwrap();
}

impl Test {
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Which process of the test this is: `first`, or what [`Self::again`] was told.
    pub fn step(&self) -> &str {
        &self.step
    }

    /// Runs the same test in one more process, and waits for its end.
    pub fn again(&self, step: &str) -> Output {
        self.process(step).output().unwrap()
    }

    /// One more process of this test, ready to run.
    pub fn process(&self, step: &str) -> Command {
        let mut process = Command::new(env::current_exe().unwrap());
        process
            .args(["--exact", &self.name, "--nocapture"])
            .env("FAULT_TOKEN_TEST", step)
            .env("FAULT_TOKEN_MODULE", SOFTHSM)
            .env("SOFTHSM2_CONF", self.path("softhsm2.conf"))
            .env("FAULT_TOKEN_CONTROL", self.path("control"))
            .env("FAULT_TOKEN_LOG", self.path("log"))
            .env("PKCS11SPY", fault_token())
            .env("PKCS11SPY_OUTPUT", self.path("spied"));
        process
    }

    /// Puts rules in force, as every user of the module does: another file, renamed.
    pub fn rules(&self, rules: &str) {
        fs::write(self.path("control.new"), rules).unwrap();
        fs::rename(self.path("control.new"), self.path("control")).unwrap();
        thread::sleep(SEEN);
    }

    /// The log's lines with this function, less the process ID.
    pub fn logged(&self, function: &str) -> Vec<String> {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        let of_function = log.lines().filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(words.len(), 3, "{line}");
            assert!(words[0].parse::<u32>().is_ok(), "{line}");
            (words[1] == function).then(|| words[2].to_owned())
        });
        of_function.collect()
    }

    /// How often a rule has acted.
    pub fn applied(&self, rule: &str) -> usize {
        let applied = fs::read_to_string(self.path("control.applied")).unwrap_or_default();
        let rules = applied.lines().map(|line| line.split_once(' ').unwrap().1);
        rules.filter(|applied| *applied == rule).count()
    }

    /// The journal's lines, less the process ID and the time, which never goes back in a process.
    pub fn journal(&self) -> Vec<String> {
        let journal = fs::read_to_string(self.path("control.journal")).unwrap_or_default();
        let mut last = 0;
        let lines = journal.lines().map(|line| {
            let (_, line) = line.split_once(' ').unwrap();
            let (time, line) = line.split_once(' ').unwrap();
            let time: u64 = time.parse().unwrap();
            assert!(last <= time, "{journal}");
            last = time;
            line.to_owned()
        });
        lines.collect()
    }

    /// The number in a file next to the control file; 0 without it.
    pub fn number(&self, name: &str) -> u64 {
        let text = fs::read_to_string(self.path(&format!("control.{name}")));
        text.map_or(0, |text| text.trim().parse().unwrap())
    }

    /// How many processes have ended without C_Finalize.
    pub fn unclean_ends(&self) -> usize {
        let files = fs::read_dir(&self.dir).unwrap().map(|entry| entry.unwrap());
        files
            .filter(|entry| {
                let name = entry.file_name();
                name.to_string_lossy().starts_with("control.process-")
                    && fs::File::open(entry.path()).unwrap().try_lock().is_ok()
            })
            .count()
    }

    /// The module with a token `test`, its keys `a` and `b`, and a session that is logged in.
    pub fn ready(&self) -> (Module, CK_SLOT_ID, CK_SESSION_HANDLE) {
        let module = Module::load(&fault_token());
        assert_eq!(module.initialize(), CKR_OK);
        let slot = module.new_token("test");
        let session = module.open(slot).unwrap();
        assert_eq!(module.login(session, PIN), CKR_OK);
        module.import(session, "a", 1);
        module.import(session, "b", 2);
        (module, slot, session)
    }

    /// The module in a later process of the test: the token is there.
    pub fn ready_again(&self) -> (Module, CK_SLOT_ID, CK_SESSION_HANDLE) {
        let module = Module::load(&fault_token());
        assert_eq!(module.initialize(), CKR_OK);
        let slot = module.slot("test").unwrap();
        let session = module.open(slot).unwrap();
        assert_eq!(module.login(session, PIN), CKR_OK);
        (module, slot, session)
    }
}

/// The library that cargo built along with this test.
pub fn fault_token() -> PathBuf {
    let mut dir = env::current_exe().unwrap();
    dir.pop();
    dir.join("libfault_token.so")
}

/// Waits for a condition.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < LIMIT, "not seen within {LIMIT:?}: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A loaded PKCS#11 module, never unloaded.
#[derive(Clone, Copy)]
pub struct Module {
    pub list: &'static CK_FUNCTION_LIST,
}

macro_rules! ask {
    ($module:expr, $name:ident($($argument:expr),* $(,)?)) => {
        // SAFETY: each use passes what PKCS#11 wants.
        unsafe { $module.list.$name.unwrap()($($argument),*) }
    };
}

fn checked<T>(code: CK_RV, value: T) -> Result<T, CK_RV> {
    if code == CKR_OK { Ok(value) } else { Err(code) }
}

impl Module {
    pub fn load(path: &Path) -> Self {
        // SAFETY: a PKCS#11 module that the test chose.
        let library = unsafe { Pkcs11::new(path) }.unwrap();
        let mut list = ptr::null_mut();
        // SAFETY: room for one pointer; the library stays loaded.
        let list = unsafe {
            assert_eq!(
                library.C_GetFunctionList.as_ref().unwrap()(&mut list),
                CKR_OK
            );
            &*list
        };
        std::mem::forget(library);
        Self { list }
    }

    pub fn initialize(&self) -> CK_RV {
        let mut arguments = CK_C_INITIALIZE_ARGS {
            flags: CKF_OS_LOCKING_OK,
            ..CK_C_INITIALIZE_ARGS::default()
        };
        ask!(self, C_Initialize((&raw mut arguments).cast()))
    }

    pub fn finalize(&self) -> CK_RV {
        ask!(self, C_Finalize(ptr::null_mut()))
    }

    pub fn slots(&self, token_present: bool) -> Vec<CK_SLOT_ID> {
        let mut count = 0;
        let present = CK_BBOOL::from(token_present);
        assert_eq!(
            ask!(self, C_GetSlotList(present, ptr::null_mut(), &mut count)),
            CKR_OK
        );
        let mut slots = vec![0; count as usize];
        assert_eq!(
            ask!(self, C_GetSlotList(present, slots.as_mut_ptr(), &mut count)),
            CKR_OK
        );
        slots.truncate(count as usize);
        slots
    }

    pub fn slot_info(&self, slot: CK_SLOT_ID) -> Result<CK_SLOT_INFO, CK_RV> {
        let mut info = CK_SLOT_INFO::default();
        checked(ask!(self, C_GetSlotInfo(slot, &mut info)), info)
    }

    pub fn token_info(&self, slot: CK_SLOT_ID) -> Result<CK_TOKEN_INFO, CK_RV> {
        let mut info = CK_TOKEN_INFO::default();
        let code = ask!(self, C_GetTokenInfo(slot, &mut info));
        checked(code, info)
    }

    pub fn slot(&self, label: &str) -> Option<CK_SLOT_ID> {
        let padded = padded(label);
        self.slots(true).into_iter().find(|slot| {
            self.token_info(*slot)
                .is_ok_and(|info| info.label == padded)
        })
    }

    pub fn new_token(&self, label: &str) -> CK_SLOT_ID {
        let empty = self.slots(true).into_iter().find(|slot| {
            self.token_info(*slot)
                .is_ok_and(|info| info.flags & CKF_TOKEN_INITIALIZED == 0)
        });
        let (empty, mut padded) = (empty.unwrap(), padded(label));
        let pin = PIN.as_ptr().cast_mut();
        let length = PIN.len() as CK_ULONG;
        assert_eq!(
            ask!(self, C_InitToken(empty, pin, length, padded.as_mut_ptr())),
            CKR_OK
        );
        let slot = self.slot(label).unwrap();
        let session = self.open(slot).unwrap();
        assert_eq!(ask!(self, C_Login(session, CKU_SO, pin, length)), CKR_OK);
        assert_eq!(ask!(self, C_InitPIN(session, pin, length)), CKR_OK);
        assert_eq!(self.logout(session), CKR_OK);
        assert_eq!(self.close(session), CKR_OK);
        slot
    }

    pub fn open(&self, slot: CK_SLOT_ID) -> Result<CK_SESSION_HANDLE, CK_RV> {
        let mut session = 0;
        let flags = CKF_SERIAL_SESSION | CKF_RW_SESSION;
        let none = ptr::null_mut();
        let code = ask!(self, C_OpenSession(slot, flags, none, None, &mut session));
        checked(code, session)
    }

    pub fn close(&self, session: CK_SESSION_HANDLE) -> CK_RV {
        ask!(self, C_CloseSession(session))
    }

    pub fn session_info(&self, session: CK_SESSION_HANDLE) -> Result<CK_SESSION_INFO, CK_RV> {
        let mut info = CK_SESSION_INFO::default();
        let code = ask!(self, C_GetSessionInfo(session, &mut info));
        checked(code, info)
    }

    pub fn login(&self, session: CK_SESSION_HANDLE, pin: &str) -> CK_RV {
        let (pin, length) = (pin.as_ptr().cast_mut(), pin.len() as CK_ULONG);
        ask!(self, C_Login(session, CKU_USER, pin, length))
    }

    pub fn logout(&self, session: CK_SESSION_HANDLE) -> CK_RV {
        ask!(self, C_Logout(session))
    }

    /// A generic secret that signs, of 32 equal bytes.
    /// Its CKA_ID is the byte alone.
    pub fn import(&self, session: CK_SESSION_HANDLE, label: &str, byte: u8) -> CK_OBJECT_HANDLE {
        let (class, kind, yes) = (CKO_SECRET_KEY, CKK_GENERIC_SECRET, [CK_TRUE]);
        let value = [byte; 32];
        let (class, kind) = (class.to_ne_bytes(), kind.to_ne_bytes());
        let mut template = [
            attribute(CKA_CLASS, &class),
            attribute(CKA_KEY_TYPE, &kind),
            attribute(CKA_TOKEN, &yes),
            attribute(CKA_PRIVATE, &yes),
            attribute(CKA_SIGN, &yes),
            attribute(CKA_LABEL, label.as_bytes()),
            attribute(CKA_ID, &value[..1]),
            attribute(CKA_VALUE, &value),
        ];
        let count = template.len() as CK_ULONG;
        let mut key = 0;
        let code = ask!(
            self,
            C_CreateObject(session, template.as_mut_ptr().cast(), count, &mut key)
        );
        checked(code, key).unwrap()
    }

    /// A generic secret that the token makes.
    pub fn generate(
        &self,
        session: CK_SESSION_HANDLE,
        label: &str,
    ) -> Result<CK_OBJECT_HANDLE, CK_RV> {
        let (yes, length) = ([CK_TRUE], CK_ULONG::to_ne_bytes(32));
        let mut template = [
            attribute(CKA_TOKEN, &yes),
            attribute(CKA_SIGN, &yes),
            attribute(CKA_LABEL, label.as_bytes()),
            attribute(CKA_VALUE_LEN, &length),
        ];
        let count = template.len() as CK_ULONG;
        let mut mechanism = CK_MECHANISM {
            mechanism: CKM_GENERIC_SECRET_KEY_GEN,
            ..CK_MECHANISM::default()
        };
        let mut key = 0;
        let template = template.as_mut_ptr().cast();
        let code = ask!(
            self,
            C_GenerateKey(session, &mut mechanism, template, count, &mut key)
        );
        checked(code, key)
    }

    pub fn destroy(&self, session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE) -> CK_RV {
        ask!(self, C_DestroyObject(session, object))
    }

    /// Every object of a label, one per call as the worst of callers does it.
    pub fn find(&self, session: CK_SESSION_HANDLE, label: &str) -> Vec<CK_OBJECT_HANDLE> {
        self.try_find(session, label).unwrap()
    }

    pub fn try_find(
        &self,
        session: CK_SESSION_HANDLE,
        label: &str,
    ) -> Result<Vec<CK_OBJECT_HANDLE>, CK_RV> {
        self.search(session, &mut [attribute(CKA_LABEL, label.as_bytes())])
    }

    pub fn find_all(&self, session: CK_SESSION_HANDLE) -> Vec<CK_OBJECT_HANDLE> {
        self.search(session, &mut []).unwrap()
    }

    fn search(
        &self,
        session: CK_SESSION_HANDLE,
        template: &mut [Attribute<'_>],
    ) -> Result<Vec<CK_OBJECT_HANDLE>, CK_RV> {
        let count = template.len() as CK_ULONG;
        let template = template.as_mut_ptr().cast();
        checked(ask!(self, C_FindObjectsInit(session, template, count)), ())?;
        let mut found = Vec::new();
        loop {
            let (mut object, mut count) = (0, 0);
            let code = ask!(self, C_FindObjects(session, &mut object, 1, &mut count));
            checked(code, ())?;
            if count == 0 {
                break;
            }
            found.push(object);
        }
        checked(ask!(self, C_FindObjectsFinal(session)), found)
    }

    pub fn sign_init(&self, session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE) -> CK_RV {
        let mut mechanism = CK_MECHANISM {
            mechanism: CKM_SHA256_HMAC,
            ..CK_MECHANISM::default()
        };
        ask!(self, C_SignInit(session, &mut mechanism, key))
    }

    /// The second half of [`Self::sign`]: the length that was said, and a buffer of 64 bytes.
    pub fn sign_only(
        &self,
        session: CK_SESSION_HANDLE,
        message: &[u8],
    ) -> (CK_RV, usize, [u8; 64]) {
        let mut mac = [0; 64];
        let mut length = 64;
        let data = message.as_ptr().cast_mut();
        let code = ask!(
            self,
            C_Sign(
                session,
                data,
                message.len() as CK_ULONG,
                mac.as_mut_ptr(),
                &mut length
            )
        );
        (code, length as usize, mac)
    }

    pub fn sign(
        &self,
        session: CK_SESSION_HANDLE,
        key: CK_OBJECT_HANDLE,
        message: &[u8],
    ) -> Result<Vec<u8>, CK_RV> {
        checked(self.sign_init(session, key), ())?;
        let (code, length, mac) = self.sign_only(session, message);
        checked(code, mac[..length].to_vec())
    }
}

/// CK_ATTRIBUTE with the lifetime of its value.
#[repr(transparent)]
struct Attribute<'a>(CK_ATTRIBUTE, std::marker::PhantomData<&'a [u8]>);

fn attribute(kind: CK_ATTRIBUTE_TYPE, value: &[u8]) -> Attribute<'_> {
    let attribute = CK_ATTRIBUTE {
        type_: kind,
        pValue: value.as_ptr().cast_mut().cast(),
        ulValueLen: value.len() as CK_ULONG,
    };
    Attribute(attribute, std::marker::PhantomData)
}

fn padded(label: &str) -> [u8; 32] {
    let mut padded = [b' '; 32];
    padded[..label.len()].copy_from_slice(label.as_bytes());
    padded
}
