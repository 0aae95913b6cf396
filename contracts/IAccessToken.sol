// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// Exactly one storage slot. `expiresAt` 0 means: no token here; the serial of a deleted token stays.
struct Token {
    uint64 issuedAt;
    uint64 expiresAt;
    bytes4 claims;
    uint64 grantBlock;
    uint32 serial;
}

/// What a key server depends on: grants of access, keyed by (client, resource server).
///
/// Every write bumps `serial` and sets `grantBlock`, so an old grantBlock in the newest state proves that the token
/// has stood unchanged since that block. The last write replaces the whole token; nothing is merged.
interface IAccessToken {
    /// @param offer the offer that it was granted for, or type(uint32).max for a grant by an authorization server
    event TokenGranted(
        address indexed client, address indexed resource, bytes4 claims, uint64 expiresAt, uint32 serial, uint32 offer
    );
    event TokenRevoked(address indexed client, address indexed resource, address indexed by, uint32 serial);
    event ClientBarred(address indexed client, address indexed resource, address indexed by, uint64 until);

    /// Grants `claims` for `ttl` seconds from now, in place of whatever stood there. Authorization servers only.
    function addToken(address client, address resource, uint64 ttl, bytes4 claims) external;

    /// The same, for many clients at once.
    function addTokens(address[] calldata clients, address resource, uint64 ttl, bytes4 claims) external;

    /// The paper's Fig. 4: what a client may do at a resource server, and until when (unix seconds, 0: no token).
    function getToken(address client, address resource)
        external
        view
        returns (address res, uint64 expiresAt, bytes4 claims);

    /// Takes a token away: an authorization server anybody's, a client its own. Without a token it does nothing.
    function deleteToken(address client, address resource) external;

    /// The same, for many clients at once. Authorization servers only.
    function deleteTokens(address[] calldata clients, address resource) external;

    /// Deletes the token and refuses every grant until `until` (unix seconds); 0 lifts the bar.
    function barClient(address client, address resource, uint64 until) external;

    function tokenOf(address client, address resource) external view returns (Token memory);

    function tokensOf(address[] calldata clients, address resource) external view returns (Token[] memory);

    function isValid(address client, address resource) external view returns (bool);
}
