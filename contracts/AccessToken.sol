// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";
import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";
import {IAccessToken, Token} from "./IAccessToken.sol";
import {Ask} from "./IPolicy.sol";
import {PolicyCall} from "./PolicyCall.sol";
import {Signatures} from "./Signatures.sol";

/// What a client may ask for: `claims` at `resource` for at most `maxTtl` seconds, if `policy` agrees.
struct Offer {
    address policy;
    uint64 maxTtl;
    bool active;
    address resource;
    bytes4 claims;
}

/// The access tokens of one resource owner (IoTChain, section III-B, Fig. 4).
///
/// The owner (DEFAULT_ADMIN_ROLE) sets offers and roles; authorization servers grant and revoke; a client may delete
/// its own token, and request one for itself where an offer's policy agrees. Nothing can be upgraded, and nothing is
/// immutable in the code, so every deployment of one release has the same runtime code.
contract AccessToken is IAccessToken, AccessControl, ReentrancyGuard {
    bytes32 public constant AUTHORIZATION_SERVER = keccak256("AUTHORIZATION_SERVER");
    uint32 public constant NO_OFFER = type(uint32).max;
    bytes32 public constant TOKEN_REQUEST_TYPE = keccak256(
        "TokenRequest(address client,uint256 offer,uint64 ttl,bytes32 proofHash,uint256 nonce,uint256 deadline)"
    );

    event OfferSet(
        uint32 indexed offer, address indexed policy, address indexed resource, bytes4 claims, uint64 maxTtl, bool active
    );
    event DefaultResourceSet(address indexed resource);

    error ZeroAddress();
    error NoClaims();
    error NoTime();
    error SerialsExhausted();
    error NotYours(address client);
    error Barred(uint64 until);
    error NoSuchOffer(uint32 offer);
    error OfferClosed(uint32 offer);
    error TtlTooLong(uint64 maxTtl);
    error Expired(uint256 deadline);
    error BadSignature();

    mapping(address client => mapping(address resource => Token)) private _tokens;
    mapping(address client => mapping(address resource => uint64)) private _barredUntil;
    mapping(address client => uint256) public nonces;
    Offer[] private _offers;
    address public defaultResource;

    /// @param owner sets offers and roles, and grants and revokes like an authorization server
    /// @param resource the resource server that the calls without one speak of; may be zero
    constructor(address owner, address resource) {
        if (owner == address(0)) revert ZeroAddress();
        _grantRole(DEFAULT_ADMIN_ROLE, owner);
        _grantRole(AUTHORIZATION_SERVER, owner);
        defaultResource = resource;
        emit DefaultResourceSet(resource);
    }

    // ------------------------------------------------------------------ authorization servers

    /// @inheritdoc IAccessToken
    function addToken(address client, address resource, uint64 ttl, bytes4 claims)
        public
        onlyRole(AUTHORIZATION_SERVER)
    {
        _grant(client, resource, ttl, claims, NO_OFFER);
    }

    function addToken(address client, uint64 ttl, bytes4 claims) external {
        addToken(client, defaultResource, ttl, claims);
    }

    /// @inheritdoc IAccessToken
    function addTokens(address[] calldata clients, address resource, uint64 ttl, bytes4 claims)
        external
        onlyRole(AUTHORIZATION_SERVER)
    {
        for (uint256 i = 0; i < clients.length; ++i) {
            _grant(clients[i], resource, ttl, claims, NO_OFFER);
        }
    }

    /// @inheritdoc IAccessToken
    function deleteToken(address client, address resource) public {
        if (msg.sender != client && !hasRole(AUTHORIZATION_SERVER, msg.sender)) revert NotYours(client);
        _revoke(client, resource);
    }

    function deleteToken(address client) external {
        deleteToken(client, defaultResource);
    }

    /// @inheritdoc IAccessToken
    function deleteTokens(address[] calldata clients, address resource) external onlyRole(AUTHORIZATION_SERVER) {
        for (uint256 i = 0; i < clients.length; ++i) {
            _revoke(clients[i], resource);
        }
    }

    /// @inheritdoc IAccessToken
    function barClient(address client, address resource, uint64 until) external onlyRole(AUTHORIZATION_SERVER) {
        _barredUntil[client][resource] = until;
        emit ClientBarred(client, resource, msg.sender, until);
        if (until > block.timestamp) _revoke(client, resource);
    }

    // ------------------------------------------------------------------ offers

    /// Makes offer number `offer`, or changes it. A new one takes the next free number, `offerCount()`, so that a
    /// repeated call changes nothing instead of making another.
    function setOffer(uint32 offer, address policy, address resource, bytes4 claims, uint64 maxTtl, bool active)
        external
        onlyRole(DEFAULT_ADMIN_ROLE)
    {
        if (policy == address(0) || resource == address(0)) revert ZeroAddress();
        if (claims == 0) revert NoClaims();
        if (maxTtl == 0) revert NoTime();
        if (offer > _offers.length || offer == NO_OFFER) revert NoSuchOffer(offer);
        if (offer == _offers.length) _offers.push();
        _offers[offer] = Offer(policy, maxTtl, active, resource, claims);
        emit OfferSet(offer, policy, resource, claims, maxTtl, active);
    }

    function setDefaultResource(address resource) external onlyRole(DEFAULT_ADMIN_ROLE) {
        defaultResource = resource;
        emit DefaultResourceSet(resource);
    }

    function offerCount() external view returns (uint32) {
        return uint32(_offers.length);
    }

    function offerOf(uint32 offer) public view returns (Offer memory) {
        if (offer >= _offers.length) revert NoSuchOffer(offer);
        return _offers[offer];
    }

    // ------------------------------------------------------------------ clients

    /// Requests the token of an offer for oneself, `ttl` seconds long. Wei sent along goes to the policy.
    function requestToken(uint32 offer, uint64 ttl, bytes calldata proof) external payable nonReentrant {
        _request(msg.sender, offer, ttl, proof);
    }

    /// Requests it for `client`, who signed `TokenRequest` under this contract's EIP-712 domain and need not own a
    /// single wei. A request that the policy refuses may be sent again until its deadline; one that was granted never.
    function requestTokenFor(
        address client,
        uint32 offer,
        uint64 ttl,
        bytes calldata proof,
        uint256 deadline,
        bytes calldata signature
    ) external payable nonReentrant {
        if (block.timestamp > deadline) revert Expired(deadline);
        bytes32 structHash = keccak256(
            abi.encode(TOKEN_REQUEST_TYPE, client, offer, ttl, keccak256(proof), nonces[client]++, deadline)
        );
        if (!Signatures.isOfAny(client, Signatures.digest(structHash), signature)) revert BadSignature();
        _request(client, offer, ttl, proof);
    }

    /// Makes every request that one has signed so far, and that was not sent yet, worthless.
    function skipNonce() external {
        nonces[msg.sender]++;
    }

    // ------------------------------------------------------------------ reads

    /// @inheritdoc IAccessToken
    function getToken(address client, address resource) public view returns (address, uint64, bytes4) {
        Token storage token = _tokens[client][resource];
        return (resource, token.expiresAt, token.claims);
    }

    function getToken(address client) external view returns (address, uint64, bytes4) {
        return getToken(client, defaultResource);
    }

    /// @inheritdoc IAccessToken
    function tokenOf(address client, address resource) external view returns (Token memory) {
        return _tokens[client][resource];
    }

    /// @inheritdoc IAccessToken
    function tokensOf(address[] calldata clients, address resource) external view returns (Token[] memory tokens) {
        tokens = new Token[](clients.length);
        for (uint256 i = 0; i < clients.length; ++i) {
            tokens[i] = _tokens[clients[i]][resource];
        }
    }

    /// @inheritdoc IAccessToken
    function isValid(address client, address resource) public view returns (bool) {
        return _tokens[client][resource].expiresAt > block.timestamp;
    }

    function isValid(address client) external view returns (bool) {
        return isValid(client, defaultResource);
    }

    /// Until when grants to a client are refused (unix seconds); 0 or past: they are not.
    function barredUntil(address client, address resource) external view returns (uint64) {
        return _barredUntil[client][resource];
    }

    /// @inheritdoc AccessControl
    function supportsInterface(bytes4 id) public view override returns (bool) {
        return id == type(IAccessToken).interfaceId || super.supportsInterface(id);
    }

    // ------------------------------------------------------------------ inside

    function _request(address client, uint32 offer, uint64 ttl, bytes calldata proof) private {
        Offer memory o = offerOf(offer);
        if (!o.active) revert OfferClosed(offer);
        if (ttl > o.maxTtl) revert TtlTooLong(o.maxTtl);
        PolicyCall.ask(
            o.policy, msg.value, Ask(client, o.resource, address(this), msg.sender, offer, ttl, o.claims), proof
        );
        // written after the policy has had its say; what a policy changed meanwhile is overwritten, never merged
        _grant(client, o.resource, ttl, o.claims, offer);
    }

    function _grant(address client, address resource, uint64 ttl, bytes4 claims, uint32 offer) private {
        if (client == address(0) || resource == address(0)) revert ZeroAddress();
        if (claims == 0) revert NoClaims();
        if (ttl == 0) revert NoTime();
        uint64 until = _barredUntil[client][resource];
        if (until > block.timestamp) revert Barred(until);
        mapping(address => Token) storage row = _tokens[client];
        uint32 serial = row[resource].serial;
        if (serial == type(uint32).max) revert SerialsExhausted();
        uint64 expiresAt = uint64(block.timestamp) + ttl;
        row[resource] = Token(uint64(block.timestamp), expiresAt, claims, uint64(block.number), ++serial);
        emit TokenGranted(client, resource, claims, expiresAt, serial, offer);
    }

    function _revoke(address client, address resource) private {
        Token storage token = _tokens[client][resource];
        if (token.expiresAt == 0) return;
        uint32 serial = token.serial;
        // a revocation always succeeds, also in the slot's last state
        if (serial != type(uint32).max) ++serial;
        _tokens[client][resource] = Token(0, 0, 0, uint64(block.number), serial);
        emit TokenRevoked(client, resource, msg.sender, serial);
    }
}
