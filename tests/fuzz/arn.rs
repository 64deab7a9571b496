#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    hsmac::model::fuzz::arn(data);
});
