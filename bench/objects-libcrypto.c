/*
 * The rival of bar P1: what sealing and opening an object costs at least, as a loop over libcrypto. Same algorithms and
 * lengths as protocol/objects (ChaCha20-Poly1305 over a reading, Ed25519 over the ciphertext and its headers), all keys
 * and contexts made beforehand, no CBOR.
 *
 *   objects-libcrypto seal|open ITERATIONS PLAINTEXT_OCTETS AAD_OCTETS SIGNED_OCTETS   prints CPU seconds
 */
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void check(int ok, const char *what) {
  if (ok == 1) return;
  fprintf(stderr, "%s failed\n", what);
  exit(1);
}

static double cpu_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
  if (argc != 6) return 2;
  const int opening = strcmp(argv[1], "open") == 0;
  const long iterations = atol(argv[2]);
  const int text_length = atoi(argv[3]), aad_length = atoi(argv[4]), signed_length = atoi(argv[5]);
  unsigned char *text = calloc(1, (size_t)text_length + 32), *aad = calloc(1, (size_t)aad_length + 1);
  unsigned char *cipher = calloc(1, (size_t)text_length + 32), *message = calloc(1, (size_t)signed_length + 1);
  unsigned char key[32] = {7}, nonce[12] = {9}, tag[16], signature[64], seed[32] = {3};
  size_t signature_length = sizeof signature;
  int n;

  EVP_CIPHER *chacha = EVP_CIPHER_fetch(NULL, "ChaCha20-Poly1305", NULL);
  EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
  EVP_PKEY *private_key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, sizeof seed);
  EVP_MD_CTX *m = EVP_MD_CTX_new();
  check(chacha != NULL && c != NULL && private_key != NULL && m != NULL, "setup");

  /* one of each, so that opening has something to open */
  check(EVP_EncryptInit_ex2(c, chacha, key, nonce, NULL), "init");
  check(EVP_EncryptUpdate(c, NULL, &n, aad, aad_length), "aad");
  check(EVP_EncryptUpdate(c, cipher, &n, text, text_length), "encrypt");
  check(EVP_EncryptFinal_ex(c, cipher + n, &n), "final");
  check(EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, 16, tag), "tag");
  check(EVP_DigestSignInit(m, NULL, NULL, NULL, private_key), "sign init");
  check(EVP_DigestSign(m, signature, &signature_length, message, (size_t)signed_length), "sign");

  const double start = cpu_seconds();
  for (long i = 0; i < iterations; i++) {
    nonce[0] = (unsigned char)(opening ? 9 : i);
    if (opening) {
      EVP_MD_CTX_reset(m);
      check(EVP_DigestVerifyInit(m, NULL, NULL, NULL, private_key), "verify init");
      check(EVP_DigestVerify(m, signature, sizeof signature, message, (size_t)signed_length), "verify");
      check(EVP_DecryptInit_ex2(c, chacha, key, nonce, NULL), "init");
      check(EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_TAG, 16, tag), "tag");
      check(EVP_DecryptUpdate(c, NULL, &n, aad, aad_length), "aad");
      check(EVP_DecryptUpdate(c, text, &n, cipher, text_length), "decrypt");
      check(EVP_DecryptFinal_ex(c, text + n, &n), "final");
    } else {
      check(EVP_EncryptInit_ex2(c, chacha, key, nonce, NULL), "init");
      check(EVP_EncryptUpdate(c, NULL, &n, aad, aad_length), "aad");
      check(EVP_EncryptUpdate(c, cipher, &n, text, text_length), "encrypt");
      check(EVP_EncryptFinal_ex(c, cipher + n, &n), "final");
      check(EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, 16, tag), "tag");
      EVP_MD_CTX_reset(m);
      check(EVP_DigestSignInit(m, NULL, NULL, NULL, private_key), "sign init");
      signature_length = sizeof signature;
      message[0] = (unsigned char)i;
      check(EVP_DigestSign(m, signature, &signature_length, message, (size_t)signed_length), "sign");
    }
  }
  printf("%.9f\n", cpu_seconds() - start);
  return 0;
}
