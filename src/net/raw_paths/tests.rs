//! Blocks of fields in front of the HTTP library: what is written anew, and what is not.

use super::*;
use crate::wire::hpack::encode as encode_block;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

/// The same frame on another stream.
fn on(stream: u8, mut frame: Vec<u8>) -> Vec<u8> {
    frame[8] = stream;
    frame
}

fn field(name: &str, value: &[u8]) -> Field {
    Field { name: Bytes::copy_from_slice(name.as_bytes()), value: Bytes::copy_from_slice(value), is_sensitive: false }
}

/// What is read of these bytes, which come in pieces of this size.
async fn read(sent: &[u8], piece: usize) -> Vec<u8> {
    let (mut client, ours) = duplex(piece);
    let mut io = RawPathIo::new(Box::new(ours));
    let sent = sent.to_vec();
    let writing = tokio::spawn(async move { client.write_all(&sent).await });
    let mut got = Vec::new();
    io.read_to_end(&mut got).await.unwrap();
    writing.await.unwrap().unwrap();
    got
}

/// The fields of the blocks among these frames.
fn blocks(mut frames: &[u8]) -> Vec<Vec<Field>> {
    let (mut decoder, mut found) = (Decoder::default(), Vec::new());
    frames = &frames[PREFACE.len()..];
    while let Some(head) = FrameHead::of(frames) {
        if head.kind == HEADERS {
            let Found::Block { length, fragments, .. } = find_block(frames) else { panic!("no block") };
            found.push(decoder.decode(&fragments, usize::MAX).unwrap().fields);
            frames = &frames[length..];
        } else {
            frames = &frames[FRAME_HEAD_BYTES + head.length..];
        }
    }
    found
}

/// A request that puts its path into the dynamic table, and one that refers to it.
fn indexed(path: &[u8]) -> [Vec<u8>; 2] {
    let length = u8::try_from(path.len()).unwrap();
    [[&[0x82, 0x87, 0x44, length][..], path].concat(), vec![0x82, 0x87, 0xbe]]
}

#[tokio::test]
async fn a_path_that_is_refused_is_encoded_and_kept_wherever_the_block_has_it_from() {
    let raw = b"/q?query=up{job=\"x\"}";
    let [first, second] = indexed(raw);
    let padded = [&[3, 0, 0, 0, 0, 9][..], &second, b"pad"].concat();
    let frames = [
        PREFACE.to_vec(),
        frame(4, 0, b""),
        frame(HEADERS, END_HEADERS | END_STREAM, &first),
        frame(0, 0, b"data"),
        on(3, frame(HEADERS, PADDED | PRIORITY, &padded)),
        on(3, frame(CONTINUATION, END_HEADERS, b"")),
    ];
    for piece in [1, 7, 4096] {
        let found = blocks(&read(&frames.concat(), piece).await);
        assert_eq!(found.len(), 2);
        for fields in found {
            assert_eq!(fields[2].value, "/q?query=up{job=%22x%22}");
            assert_eq!((&fields[3].name[..], &fields[3].value[..]), (RAW_PATH.as_bytes(), &raw[..]));
        }
    }
}

#[tokio::test]
async fn nothing_is_taken_from_a_client_for_a_path_of_its_own() {
    let block = encode_block(&[field(":path", b"/"), field(RAW_PATH, b"/forged")]);
    let got = read(&[PREFACE.to_vec(), frame(HEADERS, END_HEADERS, &block)].concat(), 64).await;
    assert_eq!(blocks(&got), [[field(":path", b"/")]]);
    let block = encode_block(&[field(":path", b"/ no\x7f")]);
    let got = read(&[PREFACE.to_vec(), frame(HEADERS, END_HEADERS, &block)].concat(), 64).await;
    assert_eq!(blocks(&got)[0][3].value, NO_URI.0, "no server can take it");
}

#[tokio::test]
async fn a_malformed_block_is_replaced_for_its_stream_alone() {
    let whole = [field(":method", b"POST"), field(":path", b"/")];
    let request = frame(HEADERS, END_HEADERS, &encode_block(&whole));
    for (malformed, word) in [
        (field(":authority", b"user@h"), "!user"),
        (field(":protocol", b"a b"), "!protocol"),
        (field(":other", b""), "!pseudo"),
        (field("", b""), "!name"),
        (field("x", b"\x7f"), "!value"),
    ] {
        let block = encode_block(&[&whole[..], &[malformed]].concat());
        let frames = [PREFACE.to_vec(), frame(HEADERS, END_HEADERS, &block), on(3, request.clone())].concat();
        let got = blocks(&read(&frames, 64).await);
        assert_eq!((&got[0][3].name[..], &got[0][3].value[..]), (RAW_PATH.as_bytes(), word.as_bytes()));
        assert_eq!(got[1], whole);
    }
    for trailers in [field(":path", b"/x"), field("X", b""), field("x", b"a\rb")] {
        let block = frame(HEADERS, END_HEADERS | END_STREAM, &encode_block(&[trailers]));
        let frames = [PREFACE.to_vec(), request.clone(), block, on(3, request.clone())].concat();
        let got = blocks(&read(&frames, 64).await);
        assert_eq!((&got[0][..], &got[1][0].name[..], &got[2][..]), (&whole[..], &b"connection"[..], &whole[..]));
    }
}

#[tokio::test]
async fn a_long_block_is_written_in_several_frames() {
    let large = vec![b'v'; 50_000];
    let block = encode_block(&[field(":path", b"/\""), field("x-large", &large)]);
    let mut pieces = block.chunks(MAX_FRAME_BYTES);
    let mut frames = [PREFACE.to_vec(), frame(HEADERS, 0, pieces.next().unwrap())].concat();
    while let Some(piece) = pieces.next() {
        frames.extend(frame(CONTINUATION, if pieces.len() == 0 { END_HEADERS } else { 0 }, piece));
    }
    let got = blocks(&read(&frames, 4096).await);
    assert_eq!((got[0][0].value.as_ref(), got[0][1].value.len()), (&b"/%22"[..], large.len()));
}

#[tokio::test]
async fn a_block_that_can_not_be_decoded_is_never_read_with_another_table() {
    let [first, _] = indexed(b"/\"");
    let frames = [PREFACE.to_vec(), frame(HEADERS, END_HEADERS, &first), frame(HEADERS, END_HEADERS, &[0xff])].concat();
    let got = read(&frames, 64).await;
    let at =
        |block| got.windows(10).position(|frame_of_one| frame_of_one == frame(HEADERS, END_HEADERS, block)).unwrap();
    assert!(at(INVALID_BLOCK) < at(&[0xff]), "the library reads no further than an error");
}

#[tokio::test]
async fn a_flood_of_continuations_is_not_held() {
    let flood: Vec<u8> = (0..100).flat_map(|_| frame(CONTINUATION, 0, &[0x82])).collect();
    let frames = [PREFACE.to_vec(), frame(HEADERS, 0, &[0x82]), flood].concat();
    let (mut client, ours) = duplex(frames.len());
    client.write_all(&frames).await.unwrap();
    let mut got = vec![0; frames.len()];
    // The client goes on.
    RawPathIo::new(Box::new(ours)).read_exact(&mut got).await.unwrap();
    assert_eq!(got, frames);
}

proptest! {
    #[test]
    fn anything_but_blocks_passes_unchanged(
        kinds in prop::collection::vec((0u8..12, any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..8),
        rest in prop::collection::vec(any::<u8>(), 0..30),
        piece in 1usize..64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let frames = kinds.iter().filter(|(kind, ..)| *kind != HEADERS).map(|(kind, flags, payload)| frame(*kind, *flags, payload));
            let sent = [PREFACE.to_vec(), frames.flatten().collect(), rest].concat();
            let got = read(&sent, piece).await;
            assert_eq!(got, sent);
        });
    }
}
