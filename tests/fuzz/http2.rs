#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    hsmac::front::fuzz::http2_before_authentication(data);
});
