/** Issues client certificates. The CA's private key stays behind this port. */
export interface CertificateIssuer {
  issue(request: { commonName: string; notAfter: Date }): Promise<IssuedCredentials>;
}

/** A client certificate, and the CA certificate with which its owner verifies gateways. */
export interface IssuedCredentials extends IssuedCertificate {
  /** Certificate of the CA that signs the gateways' certificates, PEM. */
  readonly serverCaPem: string;
  readonly caIds: BindingCaIds;
}

/** Ids of the CA that signed a binding's certificate, and of the CA that the app trusts for gateways. */
export interface BindingCaIds {
  readonly client: string;
  readonly server: string;
}

export interface IssuedCertificate {
  /** Lower-case hexadecimal, no leading zeros. */
  readonly serial: string;
  readonly certificatePem: string;
  readonly privateKeyPem: string;
  readonly expiresAt: Date;
}
