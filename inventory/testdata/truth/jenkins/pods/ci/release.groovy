podTemplate(
    serviceAccount: 'releaser',
    imagePullSecrets: ['pull-one'],
    containers: [containerTemplate(name: 'node', image: 'node', envVars: [secretEnvVar(key: 'NPM_TOKEN', secretName: 'npm', secretKey: 'token')])],
    volumes: [secretVolume(secretName: 'deploy-key', mountPath: '/home/jenkins/.ssh'), hostPathVolume(hostPath: '/var/run/docker.sock', mountPath: '/var/run/docker.sock')]
) {
    node(POD_LABEL) {
        def remote = [url: 'https://git.example.com/a.git']
        remote.credentials = "${params.LOGIN}"
        checkout([$class: 'GitSCM', userRemoteConfigs: [remote]])
    }
}
