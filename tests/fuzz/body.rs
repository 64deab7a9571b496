#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    hsmac::front::aws::fuzz::body(data);
});
