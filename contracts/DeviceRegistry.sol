// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Signatures} from "./Signatures.sol";

/// What stands in the registry for one device.
struct Device {
    address owner;
    uint64 changedBlock;
    bool active;
    bytes32 signingKey;
    bytes32 keyServer;
    uint256 nonce;
    address[] contracts;
    string uri;
}

/// Who owns a device (a resource server), which key signs its objects, which key server serves it, and whose tokens
/// count. The device agrees to its owner and keys by a signature, so nobody registers another's device.
contract DeviceRegistry {
    uint256 public constant MAX_CONTRACTS = 8;
    uint256 public constant MAX_URI = 256;
    bytes32 public constant REGISTRATION_TYPE = keccak256(
        "Registration(address device,address owner,bytes32 signingKey,bytes32 keyServer,uint256 nonce,uint256 deadline)"
    );

    event DeviceRegistered(address indexed device, address indexed owner, bytes32 signingKey, bytes32 keyServer);
    event DeviceUpdated(address indexed device, address indexed owner, bytes32 signingKey, bytes32 keyServer);
    event DeviceOffered(address indexed device, address indexed owner, address indexed newOwner);
    event DeviceTransferred(address indexed device, address indexed owner, address indexed previousOwner);
    event DeviceDeactivated(address indexed device, address indexed owner);

    error ZeroAddress();
    error ZeroKey();
    error NotOwner(address device, address owner);
    error AlreadyRegistered(address device, address owner);
    error NotActive(address device);
    error NotOffered(address device);
    error TooManyContracts();
    error UriTooLong();
    error Expired(uint256 deadline);
    error BadDeviceSignature();

    mapping(address device => Device) private _devices;
    mapping(address device => address) private _newOwner;

    /// Registers a device as the caller's. Its signature names the caller as owner, so it is of no use to anybody who
    /// sees it in the pool. One that is active already has to be transferred or deactivated first.
    /// @param signingKey SHA-256 thumbprint (RFC 9679) of the device's object-signing COSE_Key
    /// @param keyServer SHA-256 of the key server's SubjectPublicKeyInfo
    /// @param contracts the AccessToken contracts whose tokens count
    /// @param deviceSig the device's signature over Registration(device, caller, keys, nonce, deadline)
    function register(
        address device,
        bytes32 signingKey,
        bytes32 keyServer,
        address[] calldata contracts,
        string calldata uri,
        uint256 deadline,
        bytes calldata deviceSig
    ) external {
        Device storage d = _devices[device];
        if (d.active) revert AlreadyRegistered(device, d.owner);
        _checkDevice(d, device, signingKey, keyServer, deadline, deviceSig);
        d.active = true;
        d.owner = msg.sender;
        delete _newOwner[device];
        _set(d, signingKey, keyServer, contracts, uri);
        emit DeviceRegistered(device, msg.sender, signingKey, keyServer);
    }

    /// Changes an entry. Other keys need a fresh signature of the device; contracts and uri do not.
    /// @param deviceSig may be empty if signingKey and keyServer stay as they are
    function update(
        address device,
        bytes32 signingKey,
        bytes32 keyServer,
        address[] calldata contracts,
        string calldata uri,
        uint256 deadline,
        bytes calldata deviceSig
    ) external {
        Device storage d = _ownActive(device);
        if (signingKey != d.signingKey || keyServer != d.keyServer) {
            _checkDevice(d, device, signingKey, keyServer, deadline, deviceSig);
        }
        _set(d, signingKey, keyServer, contracts, uri);
        emit DeviceUpdated(device, msg.sender, signingKey, keyServer);
    }

    /// Offers a device to a new owner, who has to accept; zero withdraws the offer.
    function transfer(address device, address newOwner) external {
        _ownActive(device);
        _newOwner[device] = newOwner;
        emit DeviceOffered(device, msg.sender, newOwner);
    }

    /// Takes over a device that was offered to the caller. The contracts of the previous owner stop to count.
    function accept(address device) external {
        if (_newOwner[device] != msg.sender) revert NotOffered(device);
        Device storage d = _devices[device];
        address previous = d.owner;
        delete _newOwner[device];
        delete d.contracts;
        d.owner = msg.sender;
        d.changedBlock = uint64(block.number);
        emit DeviceTransferred(device, msg.sender, previous);
    }

    /// Takes a device out of service. Anybody whom it signs for may register it again.
    function deactivate(address device) external {
        Device storage d = _ownActive(device);
        d.active = false;
        d.changedBlock = uint64(block.number);
        delete _newOwner[device];
        emit DeviceDeactivated(device, msg.sender);
    }

    /// Everything about a device in one call; all zero if it was never registered.
    function deviceOf(address device) external view returns (Device memory) {
        return _devices[device];
    }

    function devicesOf(address[] calldata devices) external view returns (Device[] memory found) {
        found = new Device[](devices.length);
        for (uint256 i = 0; i < devices.length; ++i) {
            found[i] = _devices[devices[i]];
        }
    }

    /// To whom a device is offered, if it is.
    function offeredTo(address device) external view returns (address) {
        return _newOwner[device];
    }

    function _ownActive(address device) private view returns (Device storage d) {
        d = _devices[device];
        if (d.owner != msg.sender) revert NotOwner(device, d.owner);
        if (!d.active) revert NotActive(device);
    }

    function _checkDevice(
        Device storage d,
        address device,
        bytes32 signingKey,
        bytes32 keyServer,
        uint256 deadline,
        bytes calldata deviceSig
    ) private {
        if (device == address(0)) revert ZeroAddress();
        if (block.timestamp > deadline) revert Expired(deadline);
        bytes32 structHash =
            keccak256(abi.encode(REGISTRATION_TYPE, device, msg.sender, signingKey, keyServer, d.nonce++, deadline));
        if (!Signatures.isOf(device, Signatures.digest(structHash), deviceSig)) revert BadDeviceSignature();
    }

    function _set(
        Device storage d,
        bytes32 signingKey,
        bytes32 keyServer,
        address[] calldata contracts,
        string calldata uri
    ) private {
        if (signingKey == 0 || keyServer == 0) revert ZeroKey();
        if (contracts.length > MAX_CONTRACTS) revert TooManyContracts();
        if (bytes(uri).length > MAX_URI) revert UriTooLong();
        for (uint256 i = 0; i < contracts.length; ++i) {
            if (contracts[i] == address(0)) revert ZeroAddress();
        }
        d.signingKey = signingKey;
        d.keyServer = keyServer;
        d.contracts = contracts;
        d.uri = uri;
        d.changedBlock = uint64(block.number);
    }
}
