//! Compiles `proto/` with protox, so that our own messages need no `protoc` on the machine.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Asked for at run time: clones may share a target folder, and with it this program, compiled in another of them.
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let descriptors = protox::compile(
        [
            "lictor/v1/command.proto",
            "lictor/v1/handshake.proto",
            "lictor/v1/peer.proto",
        ],
        [&root],
    )?;
    let entry = descriptors.file.iter().flat_map(|file| &file.message_type);
    let entry = entry.filter(|message| message.name() == "Entry");
    let commands = entry
        .flat_map(|entry| &entry.field)
        .filter(|field| field.oneof_index.is_some());
    let names = commands.map(|field| format!("({}, \"{}\"),", field.number(), field.name()));
    let table = format!("&[{}]", names.collect::<String>());
    std::fs::write(PathBuf::from(std::env::var("OUT_DIR")?).join("kinds.rs"), table)?;
    prost_build::Config::new()
        .bytes(["."])
        .btree_map(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
