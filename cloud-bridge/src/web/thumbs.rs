//! Small pictures of veiled ones: made once, kept in the store beside them, and removed with them.

use super::{Failed, Web, not_found};
use crate::{catalog::ImageRow, film::frame::Frame};
use axum::{
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use edgeveil_wire::{DeviceName, RecordId};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

/// The larger side, in pixels: enough for a gallery, and small enough for a page of 24 on a bad link.
const SIDE: usize = 256;
const QUALITY: u8 = 55;

/// Pixels in millions that are in memory at the same time, three bytes each. A picture that has more is shown as it is.
pub const MEGAPIXELS: u32 = 24;

/// Where the store has it.
pub fn key(object: &str) -> String {
    format!("{object}.thumb.jpg")
}

pub async fn thumbnail(
    State(web): State<Web>,
    Path((device, id)): Path<(String, String)>,
) -> Result<Response, Failed> {
    let (Ok(device), Ok(id)) = (device.parse::<DeviceName>(), id.parse::<RecordId>()) else {
        return Ok(not_found("image"));
    };
    let Some(image) = web.catalog.image(&device, id).await? else { return Ok(not_found("image")) };
    let away = |error: crate::objects::ObjectError| {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response()
    };
    if image.thumbnail == 1 {
        match web.objects.get(&key(&image.object)).await {
            Ok(bytes) => return Ok(shown(bytes)),
            Err(error) if error.missing => {}
            Err(error) => return Ok(away(error)),
        }
    }
    let bytes = match web.objects.get(&image.object).await {
        Ok(bytes) => bytes,
        Err(error) if error.missing => {
            return Ok((StatusCode::GONE, "this image's object is gone from the store\n").into_response());
        }
        Err(error) => return Ok(away(error)),
    };
    let Some(share) = megapixels(&bytes) else { return Ok(shown(bytes)) };
    let Ok(_share) = web.small.acquire_many(share).await else { return Ok(not_found("image")) };
    let whole = bytes.clone();
    let Some(small) = tokio::task::spawn_blocking(move || shrink(&whole)).await.unwrap_or(None) else {
        // What cannot be made small is shown as it is: it is veiled.
        return Ok(shown(bytes));
    };
    keep(&web, &image, small.clone()).await;
    Ok(shown(small))
}

/// It is made again when it could not be kept.
async fn keep(web: &Web, image: &ImageRow, small: Bytes) {
    let kept = async {
        // The note first: whatever is in the store is then removed with its image.
        if web.catalog.has_thumbnail(&image.device, &image.id).await? {
            web.objects.put(&key(&image.object), small).await?;
            // It may have expired while this was written.
            if !web.catalog.has_thumbnail(&image.device, &image.id).await? {
                web.objects.delete(&key(&image.object)).await?;
            }
        }
        anyhow::Ok(())
    };
    if let Err(error) = kept.await {
        tracing::debug!(error = format!("{error:#}"), "a thumbnail could not be kept");
    }
}

/// What it takes of [`MEGAPIXELS`]; none: it is no picture, or takes more.
fn megapixels(jpeg: &[u8]) -> Option<u32> {
    let (width, height) = Frame::size(jpeg)?;
    let share = u32::try_from((width * height).div_ceil(1_000_000)).ok()?.max(1);
    (share <= MEGAPIXELS).then_some(share)
}

fn shown(bytes: Bytes) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "image/jpeg"),
        (header::CACHE_CONTROL, "private, max-age=31536000, immutable"),
    ];
    (headers, bytes).into_response()
}

fn shrink(jpeg: &[u8]) -> Option<Bytes> {
    let small = Frame::read(jpeg, None, SIDE)?;
    let (width, height) = (u16::try_from(small.width).ok()?, u16::try_from(small.height).ok()?);
    let mut out = Vec::new();
    let mut encoder = Encoder::new(&mut out, QUALITY);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.encode(&small.pixels, width, height, ColorType::Rgb).ok()?;
    Some(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zune_jpeg::{JpegDecoder, zune_core::bytestream::ZCursor};

    fn jpeg(width: u16, height: u16) -> Vec<u8> {
        let pixels: Vec<u8> =
            (0..usize::from(width) * usize::from(height)).flat_map(|n| [(n % 251) as u8, 90, 10]).collect();
        let mut out = Vec::new();
        Encoder::new(&mut out, 90).encode(&pixels, width, height, ColorType::Rgb).unwrap();
        out
    }

    #[test]
    fn a_picture_becomes_small_and_a_small_one_stays() {
        for ((width, height), (w, h)) in [
            ((1920, 1080), (256, 144)),
            ((1080, 1920), (144, 256)),
            ((64, 48), (64, 48)),
            ((4000, 1), (256, 2)),
        ] {
            let small = shrink(&jpeg(width, height)).unwrap();
            let mut decoder = JpegDecoder::new(ZCursor::new(&small[..]));
            decoder.decode_headers().unwrap();
            assert_eq!(decoder.dimensions().unwrap(), (w, h));
            assert!(small.len() < 12_000, "{} bytes", small.len());
        }
    }

    #[test]
    fn a_picture_takes_its_share_of_memory() {
        assert_eq!(megapixels(&jpeg(64, 48)), Some(1));
        assert_eq!(megapixels(&jpeg(1920, 1080)), Some(3));
        assert_eq!(megapixels(&jpeg(5000, 5000)), None);
        assert_eq!(megapixels(b"no picture"), None);
    }

    #[test]
    fn what_is_no_picture_has_none() {
        let whole = jpeg(64, 48);
        for bad in [&b""[..], b"\xff\xd8", &whole[..40]] {
            assert!(shrink(bad).is_none());
        }
    }
}
