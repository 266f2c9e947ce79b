#![no_main]

#[path = "../../targets/mod.rs"]
#[allow(dead_code)]
mod targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _ = targets::ike::reassembly(input);
});
