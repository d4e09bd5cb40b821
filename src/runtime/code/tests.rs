//! Small programs in assembly, and the calls that are seen in them.

use std::process::Command;

use super::{CodeError, system_calls};

/// Assembles and links a program.
fn program(source: &str, options: &[&str]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("x.s"), format!(".globl _start\n{source}\n")).unwrap();
    for command in [
        Command::new("as")
            .arg("-o")
            .arg(path("x.o"))
            .arg(path("x.s")),
        Command::new("ld")
            .args(options)
            .arg("-o")
            .arg(path("x"))
            .arg(path("x.o")),
    ] {
        assert!(command.status().unwrap().success());
    }
    std::fs::read(path("x")).unwrap()
}

fn seen(source: &str) -> Result<Vec<u32>, String> {
    let calls = system_calls(&program(source, &["-s"])).unwrap();
    match calls.unknown.first() {
        Some(unknown) => Err(unknown.why.clone()),
        None => Ok(calls.numbers.into_iter().collect()),
    }
}

#[test]
fn numbers_are_followed_to_their_constants() {
    for (source, expected) in [
        ("_start: mov $39, %eax; syscall; hlt", vec![39]),
        ("_start: xor %eax, %eax; syscall; hlt", vec![0]),
        ("_start: push $5; pop %rax; syscall; hlt", vec![5]),
        (
            "_start: xor %eax, %eax; movb $56, %al; syscall; hlt",
            vec![56],
        ),
        // From both callers, one of which jumps, and not what stands unused between them.
        (
            "_start: mov $7, %edi; call f; mov $8, %esi; mov %esi, %edi; jmp f\n\
             f: mov %edi, %eax; syscall; ret",
            vec![7, 8],
        ),
        // A number that is kept over a call.
        (
            "_start: mov $9, %ebx; call f; mov %ebx, %eax; syscall; hlt\nf: ret",
            vec![9],
        ),
        (
            "_start: mov $1, %eax; mov $2, %ecx; test %rdi, %rdi; cmove %ecx, %eax; syscall; hlt",
            vec![1, 2],
        ),
        // What a comparison has found.
        (
            "_start: mov (%rsp), %rax; test %rax, %rax; je 1f; hlt\n1: syscall; hlt",
            vec![0],
        ),
        (
            "_start: mov (%rsp), %rax; cmp $60, %eax; jne 1f; syscall\n1: hlt",
            vec![60],
        ),
        // A function that never returns stands before another one.
        (
            "_start: mov $11, %edi; call f; call g\nf: mov %edi, %eax; syscall; ret\n\
             g: call h\nh: hlt",
            vec![11],
        ),
    ] {
        assert_eq!(seen(source), Ok(expected), "{source}");
    }
}

#[test]
fn what_cannot_be_told_is_said() {
    for (source, expected) in [
        ("_start: mov (%rsp), %rax; syscall; hlt", "from memory"),
        ("_start: pop %rax; syscall; hlt", "from the stack"),
        (
            "_start: call f; syscall; hlt\nf: ret",
            "result of a function",
        ),
        (
            "_start: mov $1, %eax; syscall; syscall; hlt",
            "another system call",
        ),
        (
            "_start: mov $1, %eax; add %rdi, %rax; syscall; hlt",
            "computed",
        ),
        (
            "_start: mov $1, %eax; mov %bl, %al; syscall; hlt",
            "a part of it",
        ),
        ("_start: mov %edi, %eax; syscall; hlt", "cannot be seen"),
        // Its address is a value: nobody sees who calls it.
        (
            "_start: mov $3, %edi; call f; lea f(%rip), %rsi; jmp *%rsi\n\
             f: mov %edi, %eax; syscall; ret",
            "cannot be seen",
        ),
        (
            "_start: mov $3, %edi; call f; jmp *table\nf: mov %edi, %eax; syscall; ret\n\
             .data\ntable: .quad f",
            "cannot be seen",
        ),
        ("_start: mov $1, %eax; int $0x80; hlt", "32-bit"),
    ] {
        let why = seen(source).expect_err(source);
        assert!(why.contains(expected), "{source}: {why}");
    }
}

#[test]
fn what_is_no_static_program_is_refused() {
    let code = "_start: mov $1, %eax; syscall; hlt";
    let mut foreign = program(code, &[]);
    foreign[18] = 183;
    assert_eq!(system_calls(&foreign), Err(CodeError::Foreign));
    let dynamic = program(code, &["-pie", "-dynamic-linker", "/lib/ld.so"]);
    assert_eq!(system_calls(&dynamic), Err(CodeError::Dynamic));
    assert!(matches!(
        system_calls(b"#!/bin/sh\n"),
        Err(CodeError::Malformed(_))
    ));
    let position_independent = program(code, &["-pie", "--no-dynamic-linker"]);
    let calls = system_calls(&position_independent).unwrap();
    assert_eq!(calls.numbers.into_iter().collect::<Vec<_>>(), [1]);
}
