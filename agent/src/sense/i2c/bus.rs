//! A Linux bus, `/dev/i2c-N`: plain I2C, or what SMBus has of it where the adapter knows no more.

use embedded_hal::i2c::{Error, ErrorKind, ErrorType, I2c, NoAcknowledgeSource, Operation};
use i2cdev::{
    core::{I2CDevice, I2CMessage, I2CTransfer},
    linux::{LinuxI2CDevice, LinuxI2CError, LinuxI2CMessage},
};
use std::{fmt, io, path::Path};

/// An SMBus block holds so many bytes.
const BLOCK: usize = 32;

/// A bus that was opened for one chip.
pub struct LinuxBus {
    device: LinuxI2CDevice,
    /// The adapter takes no plain I2C messages.
    is_smbus: bool,
}

/// Opens it. The error says what is wrong, and the remedy.
pub fn open(path: &Path, address: u8) -> Result<LinuxBus, String> {
    match LinuxI2CDevice::new(path, u16::from(address)) {
        Ok(device) => Ok(LinuxBus { device, is_smbus: false }),
        Err(error) => {
            let error = BusError(error.into());
            let remedy = match error.0.kind() {
                io::ErrorKind::NotFound => {
                    "; switch the bus on (on a Raspberry Pi `dtparam=i2c_arm=on`), and `modprobe i2c-dev`; `i2cdetect -l` lists the buses"
                }
                io::ErrorKind::PermissionDenied => "; let the agent's user into the group i2c",
                _ => "",
            };
            Err(format!("{error}{remedy}"))
        }
    }
}

/// What the kernel said (Documentation/i2c/fault-codes).
#[derive(Debug)]
pub struct BusError(io::Error);

impl fmt::Display for BusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.raw_os_error() {
            Some(libc::EBUSY) => f.write_str(
                "a driver of the kernel has this address; take its values by `iio` or `hwmon`, or unbind it",
            ),
            _ => self.0.fmt(f),
        }
    }
}

impl Error for BusError {
    fn kind(&self) -> ErrorKind {
        match self.0.raw_os_error() {
            Some(libc::ENXIO | libc::EREMOTEIO | libc::ENODEV) => {
                ErrorKind::NoAcknowledge(NoAcknowledgeSource::Unknown)
            }
            Some(libc::EIO | libc::EPROTO | libc::ETIMEDOUT) => ErrorKind::Bus,
            Some(libc::EAGAIN) => ErrorKind::ArbitrationLoss,
            _ => ErrorKind::Other,
        }
    }
}

impl From<LinuxI2CError> for BusError {
    fn from(error: LinuxI2CError) -> Self {
        Self(error.into())
    }
}

impl ErrorType for LinuxBus {
    type Error = BusError;
}

impl I2c for LinuxBus {
    /// The address is the one that the bus was opened for.
    fn transaction(&mut self, _: u8, operations: &mut [Operation<'_>]) -> Result<(), BusError> {
        if !self.is_smbus {
            let messages = operations.iter_mut().map(|operation| match operation {
                Operation::Write(bytes) => LinuxI2CMessage::write(bytes),
                Operation::Read(into) => LinuxI2CMessage::read(into),
            });
            let mut messages: Vec<_> = messages.collect();
            match self.device.transfer(&mut messages).map_err(BusError::from) {
                Ok(_) => return Ok(()),
                Err(error) if error.0.raw_os_error() != Some(libc::EOPNOTSUPP) => return Err(error),
                Err(_) => self.is_smbus = true,
            }
        }
        self.smbus(operations)
    }
}

impl LinuxBus {
    /// The forms that SMBus has, as they look the same on the wire.
    fn smbus(&mut self, operations: &mut [Operation<'_>]) -> Result<(), BusError> {
        let device = &mut self.device;
        match operations {
            [Operation::Write([register]), Operation::Read(into)] => match into {
                [value] => *value = device.smbus_read_byte_data(*register)?,
                [low, high] => [*low, *high] = device.smbus_read_word_data(*register)?.to_le_bytes(),
                _ if into.len() <= BLOCK => {
                    let block = device.smbus_read_i2c_block_data(*register, into.len() as u8)?;
                    if block.len() != into.len() {
                        let what = format!("{} bytes came instead of {}", block.len(), into.len());
                        return Err(BusError(io::Error::new(io::ErrorKind::UnexpectedEof, what)));
                    }
                    into.copy_from_slice(&block);
                }
                _ => return Err(beyond_smbus()),
            },
            [Operation::Write([command])] => device.smbus_write_byte(*command)?,
            [Operation::Write([register, value])] => device.smbus_write_byte_data(*register, *value)?,
            [Operation::Write([register, low, high])] => {
                device.smbus_write_word_data(*register, u16::from_le_bytes([*low, *high]))?;
            }
            [Operation::Write([register, values @ ..])] if values.len() <= BLOCK => {
                device.smbus_write_i2c_block_data(*register, values)?;
            }
            [Operation::Read([value])] => *value = device.smbus_read_byte()?,
            _ => return Err(beyond_smbus()),
        }
        Ok(())
    }
}

fn beyond_smbus() -> BusError {
    let what = "the adapter knows only SMBus, and this chip needs plain I2C; put it on another bus";
    BusError(io::Error::new(io::ErrorKind::Unsupported, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_opened_is_told_with_its_remedy() {
        let error = open(Path::new("/dev/i2c-none"), 0x76).map(|_| ()).unwrap_err();
        assert!(error.contains("dtparam=i2c_arm=on") && error.contains("i2c-dev"), "{error}");
        // It can be opened, and is no bus.
        let error = open(Path::new("/dev/null"), 0x76).map(|_| ()).unwrap_err();
        assert!(error.contains("ioctl"), "{error}");
    }

    #[test]
    fn the_kernels_numbers_are_of_their_kind() {
        for (number, kind) in [
            (libc::EREMOTEIO, ErrorKind::NoAcknowledge(NoAcknowledgeSource::Unknown)),
            (libc::ENXIO, ErrorKind::NoAcknowledge(NoAcknowledgeSource::Unknown)),
            (libc::ETIMEDOUT, ErrorKind::Bus),
            (libc::EAGAIN, ErrorKind::ArbitrationLoss),
            (libc::EINVAL, ErrorKind::Other),
        ] {
            assert_eq!(BusError(io::Error::from_raw_os_error(number)).kind(), kind, "{number}");
        }
        assert!(BusError(io::Error::from_raw_os_error(libc::EBUSY)).to_string().contains("`iio`"));
    }
}
