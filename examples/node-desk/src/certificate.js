// The certificate that a plugin shows its host. Node makes keys and signatures
// but no certificates, and the libraries that do bring a megabyte along for
// what are 300 bytes of a fixed form: an X.509 certificate (RFC 5280) in DER, signed
// by its own key, in which only the key, the number and the signature vary.
import { generateKeyPairSync, randomBytes, sign } from "node:crypto";

/**
 * Makes a key and a certificate for localhost, the name for which hosts ask.
 * It is trusted because the host got it from the process that it started, so
 * no date limits it.
 * @returns {{key: string, cert: string, der: Buffer}} PEM, PEM, and the certificate in DER
 */
export function makeCertificate() {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const serial = randomBytes(16);
  serial[0] = (serial[0] & 0x3f) | 0x40; // a positive number without leading zeros
  const content = sequence(
    der(0xa0, integer(Buffer.of(2))), // version 3
    integer(serial),
    ecdsaWithSHA256,
    localhost, // the issuer
    sequence(der(0x17, "000101000000Z"), der(0x18, "99991231235959Z")),
    localhost, // the subject
    publicKey.export({ type: "spki", format: "der" }),
    der(0xa3, sequence(sequence(subjectAltName, octets(sequence(der(0x82, "localhost")))))),
  );
  const signature = sign("sha256", content, privateKey);
  const certificate = sequence(content, ecdsaWithSHA256, der(0x03, Buffer.of(0), signature));
  return {
    key: privateKey.export({ type: "pkcs8", format: "pem" }),
    cert: `-----BEGIN CERTIFICATE-----\n${certificate.toString("base64")}\n-----END CERTIFICATE-----\n`,
    der: certificate,
  };
}

/** Tag, length and content. */
function der(tag, ...parts) {
  const content = Buffer.concat(parts.map((part) => Buffer.from(part)));
  const n = content.length;
  const length = n < 0x80 ? [n] : n < 0x100 ? [0x81, n] : [0x82, n >> 8, n & 0xff];
  return Buffer.concat([Buffer.of(tag, ...length), content]);
}

const sequence = (...parts) => der(0x30, ...parts);
const integer = (bytes) => der(0x02, bytes);
const octets = (bytes) => der(0x04, bytes);
const identifier = (hex) => der(0x06, Buffer.from(hex, "hex"));

const ecdsaWithSHA256 = sequence(identifier("2a8648ce3d040302"));
const commonName = identifier("550403");
const subjectAltName = identifier("551d11");
const localhost = sequence(der(0x31, sequence(commonName, der(0x0c, "localhost"))));
