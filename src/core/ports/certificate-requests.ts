/** A gateway's certificate with its chain, PEM, and the id of the CA that signed it. */
export interface SignedRequest {
  readonly chain: string;
  readonly ca: string;
}

/** The gateway's side: its private key never leaves its process, so an api signs a request. */
export interface CertificateRequester {
  /**
   * @param requestPem PKCS#10.
   * @param timeoutMs how long to wait for an api to answer, in milliseconds.
   * @throws Error if no api has answered in time.
   */
  request(requestPem: string, timeoutMs: number): Promise<SignedRequest>;
}

/** The api's side. */
export interface CertificateRequestQueue {
  /**
   * Answers the requests that wait already and those to come.
   * @param sign makes the certificate for a PKCS#10 request.
   * @returns what stops it.
   */
  answer(sign: (requestPem: string) => Promise<SignedRequest>, onError: (error: unknown) => void): () => void;
  /** Deletes requests of gateways that died while they waited: those older than 2 minutes. */
  deleteAbandoned(): Promise<void>;
}
